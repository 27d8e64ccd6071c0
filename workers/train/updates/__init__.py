"""Axis three, the weight update: one way to apply each member of `luthier.design.Update`."""

from __future__ import annotations

from transformers import PreTrainedModel

from luthier.design import Dora, Full, Lora, RsLora, TopLayers, Update
from workers.train.updates.applied import Applied
from workers.train.updates.low_rank import low_rank
from workers.train.updates.partial import full, top_layers

__all__ = ["Applied", "apply"]


def apply(model: PreTrainedModel, update: Update, seed: int) -> Applied:
    """Put an update on a model, in place. `seed` decides whatever the update draws at random."""
    match update:
        case Full():
            return full(model, update)
        case TopLayers():
            return top_layers(model, update)
        case Lora() | RsLora() | Dora():
            return low_rank(model, update, seed)
