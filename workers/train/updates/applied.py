"""What a weight update is, once applied to a model: which parameters exist and which of them move."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch.nn import Parameter
from transformers import PreTrainedModel


class Applied(Protocol):
    """A model with one weight update on it. Only `trainable` parameters require gradients."""

    @property
    def model(self) -> PreTrainedModel:
        """The model to call: an ordinary transformers model, with adapters in place where the update adds them."""
        ...

    def trainable(self) -> dict[str, Parameter]:
        """The parameters that move, by their names in `model`."""
        ...

    def pace(self, name: str) -> float:
        """How many times faster than the optimiser's learning rate the parameter of this name learns."""
        ...

    def merge(self) -> PreTrainedModel:
        """The plain model with the update folded into its weights. The update is used up."""
        ...

    def save_adapter(self, folder: Path) -> bool:
        """Write PEFT's adapter format and return True, or return False where the update has no adapter."""
        ...


def moving(model: PreTrainedModel) -> dict[str, Parameter]:
    """Parameters that require gradients, shared ones (tied embeddings) once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
