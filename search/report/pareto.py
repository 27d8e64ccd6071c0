"""The Pareto front of designs: those that no other design beats in quality, inference cost and training cost at once.

Inference cost is the number of parameters after adapters are merged; architecture edits remove parameters and virtual
tokens add some. Training cost is the device-seconds of the design's first trial, including scoring.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from luthier.design import Architecture, Design
from luthier.models.base_model import ModelFacts
from luthier.updates import Prefix, Prompt
from luthier.values import Frozen


class Price(Frozen):
    """A design's quality and costs."""

    number: int = Field(ge=0)
    value: float = Field(description="the objective, lower is better")
    parameters: int | None = Field(description="of the trained model; None if its base model is no longer registered")
    device_seconds: float = Field(ge=0)


def front(prices: Sequence[Price]) -> list[Price]:
    """Return the designs that no other design dominates, best quality first.

    Of designs that are equal in all three figures only the first is kept.
    """
    ranked = sorted(prices, key=lambda price: (*_figures(price), price.number))
    kept: list[Price] = []
    for price in ranked:  # a design that dominates another one comes before it
        figures = _figures(price)
        if not any(all(a <= b for a, b in zip(_figures(other), figures, strict=True)) for other in kept):
            kept.append(price)
    return kept


def _figures(price: Price) -> tuple[float, float, float]:
    parameters = float("inf") if price.parameters is None else price.parameters
    return price.value, parameters, price.device_seconds


def parameters(design: Design, facts: ModelFacts) -> int:
    """Return the number of parameters of the trained model: exact for an unedited base, else an estimate."""
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
