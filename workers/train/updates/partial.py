"""Updates that move a model's own weights, all of them or some."""

from __future__ import annotations

from pathlib import Path

from torch.nn import Module, ModuleList, Parameter
from transformers import PreTrainedModel

from luthier.design import Full, TopLayers
from luthier.errors import Infeasible
from workers.train.updates.applied import moving


class InPlace:
    """The model's own parameters, those that require gradients."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def trainable(self) -> dict[str, Parameter]:
        return moving(self.model)

    def merge(self) -> PreTrainedModel:
        return self.model

    def save_adapter(self, folder: Path) -> bool:
        return False


def full(model: PreTrainedModel, update: Full) -> InPlace:
    model.requires_grad_(True)
    return InPlace(model)


def top_layers(model: PreTrainedModel, update: TopLayers) -> InPlace:
    """Freeze all but the last layers and what follows them. Raises Infeasible if it has fewer layers or none."""
    layers, norm = getattr(model.base_model, "layers", None), getattr(model.base_model, "norm", None)
    if not isinstance(layers, ModuleList) or not isinstance(norm, Module):
        raise Infeasible(f"{type(model).__name__} has no list of layers with a norm after it, which top_layers needs")
    if update.layers > len(layers):
        raise Infeasible(f"top_layers asks for {update.layers} layers, the model has {len(layers)}")
    model.requires_grad_(False)
    for module in (*layers[-update.layers :], norm):
        module.requires_grad_(True)
    return InPlace(model)
