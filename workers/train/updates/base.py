"""The interface of a weight update: which parameters a model has, and which of them are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch.nn import Parameter
from transformers import PreTrainedModel

from luthier.updates import UpdateMember
from workers.train.forward import CausalModel


class Applied(Protocol):
    """A model with one weight update applied. Only its `trainable` parameters require gradients."""

    @property
    def model(self) -> CausalModel:
        """The model to call: a transformers model, with adapters injected if the update adds them. For virtual tokens
        it is PEFT's wrapper."""
        ...

    def trainable(self) -> dict[str, Parameter]:
        """Return the trained parameters, by their names in `model`."""
        ...

    def lr_scale(self, name: str) -> float:
        """Return the factor on the learning rate for the parameter of this name."""
        ...

    @property
    def mergeable(self) -> bool:
        """Whether the update can be merged into the weights of a plain model."""
        ...

    def merge(self) -> PreTrainedModel:
        """Return the plain model with the update merged into its weights. The update cannot be used afterwards.

        Raises Infeasible if it is not mergeable.
        """
        ...

    def save_adapter(self, folder: Path) -> bool:
        """Save the adapter in PEFT's format and return True; return False if the update has none."""
        ...

    def begin(self, steps: int) -> None:
        """Prepare for a stage of `steps` optimiser steps. Called before its first step and again before it resumes."""
        ...

    def penalty(self) -> torch.Tensor | None:
        """Return a term to add to the loss of each optimiser step, with its gradient; None without one."""
        ...

    def after_step(self, step: int) -> None:
        """Called after optimiser step `step`, counted from 0, while the gradients still exist."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Return what resuming needs besides the trainable parameters."""
        ...

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Load what `state` returned."""
        ...


class Stateless:
    """Base of mergeable updates without state, penalty or learning-rate factors of their own."""

    mergeable = True

    def lr_scale(self, name: str) -> float:
        return 1.0

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


def trainable_parameters(model: CausalModel) -> dict[str, Parameter]:
    """Return the parameters that require gradients, by name; shared ones (tied embeddings) once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """How a weight update is put on a model, and what the reproduction script needs to know of it.

    peft_config    name of PEFT's configuration class; None if the update has no adapter
    own_reference  whether DPO and kin need a copy of the model as reference: TRL's own reference is a second adapter
                   beside the first, which PEFT would start differently, or cannot make
    """

    apply: Callable[[PreTrainedModel, Any, int], Applied]
    peft_config: str | None
    own_reference: bool


IMPLEMENTATIONS: dict[str, Implementation] = {}  # by `kind`; filled when the modules of this folder are imported

Function = TypeVar("Function", bound=Callable[[PreTrainedModel, Any, int], Applied])


def implements(
    *members: type[UpdateMember], peft_config: str | None = None, own_reference: bool = False
) -> Callable[[Function], Function]:
    """Declare that the decorated function puts these updates on a model, in place. Its arguments are the model, the
    update and a seed for what is random. The others as in `Implementation`."""

    def register(apply: Function) -> Function:
        for member in members:
            found = Implementation(apply=apply, peft_config=peft_config, own_reference=own_reference)
            IMPLEMENTATIONS[member.kind_name()] = found
        return apply

    return register
