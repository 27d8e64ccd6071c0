"""Which designs are worth their price: those that no other beats in quality, cost of use and cost of training at once.

What a design costs in use is the number of parameters that its model computes with once adapters are folded in: an
edited architecture has fewer, virtual tokens add some. What it cost in training are the device-seconds of its first
trial, those for scoring it included.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from luthier.design import Architecture, Design, Frozen, Prefix, Prompt
from luthier.models.base_model import ModelFacts


class Price(Frozen):
    """A design's quality, and what it costs."""

    number: int = Field(ge=0)
    value: float = Field(description="the objective, lower is better")
    parameters: int | None = Field(description="of the model in use; None where the base model is not known any more")
    device_seconds: float = Field(ge=0)


def front(prices: Sequence[Price]) -> list[Price]:
    """Those that no other is at least as good as in everything, and better than in something; best quality first.

    Of designs that are equal in everything the first stays.
    """
    ranked = sorted(prices, key=lambda price: (*_figures(price), price.number))
    kept: list[Price] = []
    for price in ranked:  # whatever dominates a price stands before it
        if not any(_covers(other, price) for other in kept):
            kept.append(price)
    return kept


def _covers(one: Price, other: Price) -> bool:
    return all(a <= b for a, b in zip(_figures(one), _figures(other), strict=True))


def _figures(price: Price) -> tuple[float, float, float]:
    parameters = float("inf") if price.parameters is None else price.parameters
    return price.value, parameters, price.device_seconds


def parameters(design: Design, facts: ModelFacts) -> int:
    """Of the model that the design ends with, as near as the base's facts tell; exact for a base as it is."""
    architecture, added = design.architecture, 0
    layers = architecture.layers or facts.layers
    kv_width = round((architecture.kv_heads or facts.kv_heads) * facts.hidden_size / facts.heads)
    if design.stages:
        match design.stages[-1].update:
            case Prompt(tokens=tokens):
                added = tokens * facts.hidden_size
            case Prefix(tokens=tokens):
                added = tokens * 2 * layers * kv_width
            case _:
                pass
    return _edited(architecture, facts, layers, kv_width) + added


def _edited(architecture: Architecture, facts: ModelFacts, layers: int, kv_width: int) -> int:
    embeddings = facts.vocab_size * facts.hidden_size * (1 if facts.tied else 2)
    all_layers = max(0, facts.parameters - embeddings)
    pooled = 0.0
    if architecture.kv_heads is not None:
        pooled = 2 * facts.hidden_size * (facts.kv_heads * facts.hidden_size / facts.heads - kv_width)
    return round(facts.parameters - all_layers + layers * (all_layers / facts.layers - pooled))
