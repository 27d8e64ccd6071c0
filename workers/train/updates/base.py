"""What a weight update is, once applied to a model: which parameters exist and which of them move."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch.nn import Parameter
from transformers import PreTrainedModel

from workers.train.forward import CausalModel


class Applied(Protocol):
    """A model with one weight update on it. Only `trainable` parameters require gradients."""

    @property
    def model(self) -> CausalModel:
        """The model to call: an ordinary transformers model, with adapters in place where the update adds them, or
        PEFT's where the update adds virtual tokens."""
        ...

    def trainable(self) -> dict[str, Parameter]:
        """The parameters that move, by their names in `model`."""
        ...

    def pace(self, name: str) -> float:
        """How many times faster than the optimiser's learning rate the parameter of this name learns."""
        ...

    @property
    def mergeable(self) -> bool:
        """Whether the update can be folded into the weights of a plain model."""
        ...

    def merge(self) -> PreTrainedModel:
        """The plain model with the update folded into its weights. The update is used up.

        Raises Infeasible where it is not mergeable.
        """
        ...

    def save_adapter(self, folder: Path) -> bool:
        """Write PEFT's adapter format and return True, or return False where the update has no adapter."""
        ...

    def begin(self, steps: int) -> None:
        """A stage of so many optimiser steps begins: before its first step, and again before it is resumed."""
        ...

    def penalty(self) -> torch.Tensor | None:
        """What the update adds to the loss of each optimiser step, with its gradient."""
        ...

    def after_step(self, step: int) -> None:
        """The optimiser has taken a step, counted from 0; the gradients are still there."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """What resuming needs beside the trainable parameters."""
        ...

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take back what `state` gave."""
        ...


class Steady:
    """An update that can be merged and that the loop trains like any other parameters: it keeps no state of its own."""

    mergeable = True

    def begin(self, steps: int) -> None:
        pass

    def penalty(self) -> torch.Tensor | None:
        return None

    def after_step(self, step: int) -> None:
        pass

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        pass


def moving(model: CausalModel) -> dict[str, Parameter]:
    """Parameters that require gradients, shared ones (tied embeddings) once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
