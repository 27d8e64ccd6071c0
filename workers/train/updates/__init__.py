"""Axis three, the weight update: one way to apply each member of `luthier.updates.Update`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from transformers import PreTrainedModel

from luthier.updates import Update
from workers.train.updates.base import IMPLEMENTATIONS, Applied

for _module in pkgutil.iter_modules(__path__):  # each registers its updates
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Applied", "apply", "own_reference", "peft_config"]


def apply(model: PreTrainedModel, update: Update, seed: int) -> Applied:
    """Apply an update to a model in place. `seed` determines its random initial values.

    Raises Infeasible if the model does not support the update.
    """
    return IMPLEMENTATIONS[update.kind].apply(model, update, seed)


def peft_config(update: Update) -> str | None:
    """Return the name of PEFT's configuration class of an update; None if it has no adapter."""
    return IMPLEMENTATIONS[update.kind].peft_config


def own_reference(update: Update) -> bool:
    """Return whether TRL's DPO and kin need a copy of the model as the reference beside this update."""
    return IMPLEMENTATIONS[update.kind].own_reference
