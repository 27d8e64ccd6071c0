"""Updates that train a model's own weights: all of them, or some while the rest is frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch.nn import ModuleList, Parameter
from transformers import PreTrainedModel

from luthier.errors import Infeasible
from luthier.updates import BitFit, Full, LayerNorm, TopLayers
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
    place = last_layers(model)
    if place is None:
        raise Infeasible(f"top_layers needs a list of layers followed by a norm; {type(model).__name__} has none")
    layers = cast("ModuleList", model.base_model.get_submodule(place.layers))
    if update.layers > len(layers):
        raise Infeasible(f"top_layers trains {update.layers} layers, but the model has only {len(layers)}")
    model.requires_grad_(False)
    for module in (*layers[-update.layers :], *(model.base_model.get_submodule(norm) for norm in place.norms)):
        module.requires_grad_(True)
    return InPlace(model)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastLayers:
    """Where the list of transformer layers is, and the norms beside it, as names in the model without its head."""

    layers: str
    norms: tuple[str, ...]


def last_layers(model: PreTrainedModel) -> LastLayers | None:
    """Return where the layers and the final norm are; None if a decoder has no such list or no norm beside it."""
    depth = model.config.get_text_config().num_hidden_layers
    lists = [name for name, each in model.base_model.named_modules() if isinstance(each, ModuleList)]
    for name in sorted(lists, key=lambda name: name.count(".")):
        above, _, _ = name.rpartition(".")
        if len(cast("ModuleList", model.base_model.get_submodule(name))) == depth:
            beside = model.base_model.get_submodule(above).named_children()
            own = [child for child, module in beside if "Norm" in type(module).__name__ and "word" not in child]
            norms = tuple(f"{above}.{child}" if above else child for child in own)
            return LastLayers(layers=name, norms=norms) if norms or is_encoder(model) else None
    return None


@implements(LayerNorm)
def layernorm(model: PreTrainedModel, update: LayerNorm, seed: int) -> InPlace:
    """Freeze all but the normalisation layers. Raises Infeasible if they have no parameters."""
    norms = [module for module in model.modules() if "Norm" in type(module).__name__]
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
