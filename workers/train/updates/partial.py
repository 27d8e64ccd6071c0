"""Updates that train a model's own weights: all of them, or some while the rest is frozen."""

from __future__ import annotations

from pathlib import Path

from torch.nn import Module, Parameter
from transformers import PreTrainedModel

from luthier.errors import Infeasible
from luthier.updates import BitFit, Full, LayerNorm, TopLayers
from workers.train.architectures.edits import layers_of
from workers.train.forward import is_encoder
from workers.train.updates.base import Stateless, implements, trainable_parameters


class InPlace(Stateless):
    """The model itself. It has no adapter, and merging changes nothing."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def trainable(self) -> dict[str, Parameter]:
        return trainable_parameters(self.model)

    def merge(self) -> PreTrainedModel:
        return self.model

    def save_adapter(self, folder: Path) -> bool:
        return False


@implements(Full)
def full(model: PreTrainedModel, update: Full, seed: int) -> InPlace:
    """Train every parameter."""
    model.requires_grad_(True)
    return InPlace(model)


@implements(TopLayers)
def top_layers(model: PreTrainedModel, update: TopLayers, seed: int) -> InPlace:
    """Freeze all but the last layers and the final norm. BERT has no final norm: its layers end in norms.

    Raises Infeasible if the model has too few layers, or no list of layers with a norm after it.
    """
    layers = layers_of(model)
    norms = [getattr(model.base_model, name, None) for name in ("norm", "final_norm")]
    found = [norm for norm in norms if isinstance(norm, Module)]
    if layers is None or not (found or is_encoder(model)):
        raise Infeasible(f"top_layers needs a list of layers followed by a norm; {type(model).__name__} has none")
    if update.layers > len(layers):
        raise Infeasible(f"top_layers trains {update.layers} layers, but the model has only {len(layers)}")
    model.requires_grad_(False)
    for module in (*layers[-update.layers :], *found):
        module.requires_grad_(True)
    return InPlace(model)


@implements(LayerNorm)
def layernorm(model: PreTrainedModel, update: LayerNorm, seed: int) -> InPlace:
    """Freeze all but the normalisation layers. Raises Infeasible if they have no parameters."""
    norms = [module for module in model.modules() if type(module).__name__.endswith("Norm")]
    return _only(model, update.kind, [parameter for norm in norms for parameter in norm.parameters(recurse=False)])


@implements(BitFit)
def bitfit(model: PreTrainedModel, update: BitFit, seed: int) -> InPlace:
    """Freeze all but the biases, including those of norms (Ben Zaken et al. 2022). Raises Infeasible without biases."""
    return _only(model, update.kind, [p for name, p in model.named_parameters() if name.endswith(".bias")])


def _only(model: PreTrainedModel, kind: str, parameters: list[Parameter]) -> InPlace:
    """Train these parameters and freeze the rest."""
    if not parameters:
        raise Infeasible(f"{type(model).__name__} has no parameters that {kind} trains")
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    return InPlace(model)
