"""Updates that move a model's own weights, all of them or some."""

from __future__ import annotations

from pathlib import Path

from torch.nn import Module, Parameter
from transformers import PreTrainedModel

from luthier.design import BitFit, Full, LayerNorm, TopLayers
from luthier.errors import Infeasible
from workers.train.architectures.edits import layers_of
from workers.train.forward import is_encoder
from workers.train.updates.base import Steady, moving


class InPlace(Steady):
    """The model's own parameters, those that require gradients."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def trainable(self) -> dict[str, Parameter]:
        return moving(self.model)

    def pace(self, name: str) -> float:
        return 1.0

    def merge(self) -> PreTrainedModel:
        return self.model

    def save_adapter(self, folder: Path) -> bool:
        return False


def full(model: PreTrainedModel, update: Full) -> InPlace:
    model.requires_grad_(True)
    return InPlace(model)


def top_layers(model: PreTrainedModel, update: TopLayers) -> InPlace:
    """Freeze all but the last layers and the norm that follows them (BERT's layers end in norms of their own).

    Raises Infeasible if it has fewer layers or none.
    """
    layers = layers_of(model)
    norms = [getattr(model.base_model, name, None) for name in ("norm", "final_norm")]
    found = [norm for norm in norms if isinstance(norm, Module)]
    if layers is None or not (found or is_encoder(model)):
        raise Infeasible(f"{type(model).__name__} has no list of layers with a norm after it, which top_layers needs")
    if update.layers > len(layers):
        raise Infeasible(f"top_layers asks for {update.layers} layers, the model has {len(layers)}")
    model.requires_grad_(False)
    for module in (*layers[-update.layers :], *found):
        module.requires_grad_(True)
    return InPlace(model)


def layernorm(model: PreTrainedModel, update: LayerNorm) -> InPlace:
    """Freeze all but the normalisation layers. Raises Infeasible where they have no parameters."""
    norms = [module for module in model.modules() if type(module).__name__.endswith("Norm")]
    return _alone(model, update.kind, [parameter for norm in norms for parameter in norm.parameters(recurse=False)])


def bitfit(model: PreTrainedModel, update: BitFit) -> InPlace:
    """Freeze all but the biases, those of norms included. Raises Infeasible where there are none."""
    return _alone(model, update.kind, [p for name, p in model.named_parameters() if name.endswith(".bias")])


def _alone(model: PreTrainedModel, kind: str, parameters: list[Parameter]) -> InPlace:
    if not parameters:
        raise Infeasible(f"{type(model).__name__} has no parameters that {kind} moves")
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    return InPlace(model)
