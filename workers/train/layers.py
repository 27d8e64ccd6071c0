"""Where families keep their transformer layers."""

from __future__ import annotations

from typing import Final

from torch.nn import Module, ModuleList
from transformers import PreTrainedModel

PLACES: Final = ("layers", "encoder.layer", "transformer.layer")  # Llama and ModernBERT; BERT and RoBERTa; DistilBERT


def place_of_layers(model: PreTrainedModel) -> str | None:
    """The name of the list of layers in the model without its head; None for families that have no such list."""
    for place in PLACES:
        module: Module | None = model.base_model
        for name in place.split("."):
            module = getattr(module, name, None)
        if isinstance(module, ModuleList):
            return place
    return None


def layers_of(model: PreTrainedModel) -> ModuleList | None:
    place = place_of_layers(model)
    layers = None if place is None else model.base_model.get_submodule(place)
    return layers if isinstance(layers, ModuleList) else None
