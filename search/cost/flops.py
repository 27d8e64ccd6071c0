"""Passes through a model, in numbers that do not depend on the machine: with a gradient, without, and token by token.

A matrix product of T tokens with N weights takes 2·T·N FLOPs, its backward pass as many again for the inputs' gradient
and for the weights' (Kaplan et al. 2020, section 2.1: 6·N for a token where all weights move).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from luthier.design import AdaLora, Dora, Full, Ia3, Lora, LoraPlus, Oft, Pissa, QLora, RsLora, TopLayers, Update, Vera
from search.cost.parameters import Moving, Shape, moving

Kind = Literal["cpu", "cuda", "mps"]

TOKEN_CAP: Final[dict[Kind, int]] = {"cpu": 2048, "cuda": 16384, "mps": 4096}  # of one pass, as the workers have it

# Operations of one layer's pass, of one sequence in it, and of one adapter; rough, their price is fitted.
_LAYER_CALLS, _SEQUENCE_CALLS, _PASS_CALLS = 34, 5, 60
_CALLS: Final = {"dora": 18, "vera": 10, "oft": 30, "adalora": 8, "ia3": 3}
_LORA_CALLS: Final = 6


class Work(NamedTuple):
    """Amounts of work, each with a price in seconds on a device."""

    flops: float = 0.0  # of matrix products
    elements: float = 0.0  # read and written between them
    logits: float = 0.0  # and their softmax, numbers
    calls: float = 0.0  # of operations, whatever their size
    weights: float = 0.0  # read by passes that draw a token for a few sequences, numbers
    decoded: float = 0.0  # operations of such passes
    optimised: float = 0.0  # numbers moved by optimiser steps
    tensors: float = 0.0  # moved by optimiser steps
    copied: float = 0.0  # numbers of models that are made, merged and written
    modules: float = 0.0  # adapters put in place and merged
    leases: float = 0.0  # begun and ended

    def plus(self, *others: Work) -> Work:
        return Work(*map(sum, zip(self, *others, strict=True)))

    def times(self, factor: float) -> Work:
        return Work(*(factor * amount for amount in self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """So many passes over so many tokens in all, in sequences of a mean length."""

    passes: float
    sequences: float
    tokens: float
    targets: float
    length: float


def forward(model: Shape, done: Passes, update: Update | None, modules: Moving | None) -> Work:
    dense = 2 * done.tokens * _matrices(model, layered=True) + 2 * done.targets * _matrices(model, layered=False)
    adapters = _adapter_forward(done, update, modules)
    return Work(
        flops=dense + _attended(model, done.tokens, done.length) + 2 * done.targets * model.head,
        elements=done.tokens * model.layers * (12 * model.hidden + 4 * model.inner),
        logits=3 * done.targets * model.facts.vocab_size,
        calls=_calls(model, done, update, modules),
    ).plus(adapters)


def backward(model: Shape, done: Passes, update: Update, modules: Moving) -> Work:
    reached = share_reached(model, update)
    dense = 2 * done.tokens * _matrices(model, layered=True) + 2 * done.targets * _matrices(model, layered=False)
    head = 2 * done.targets * model.head
    moved = 0.0
    if isinstance(update, Full):
        moved = dense + head
    elif isinstance(update, TopLayers):
        moved = dense * reached
    adapters = _adapter_forward(done, update, modules).times(2.0)
    return Work(
        flops=reached * (dense + 2.5 * _attended(model, done.tokens, done.length)) + head + moved,
        elements=reached * 2 * done.tokens * model.layers * (12 * model.hidden + 4 * model.inner),
        logits=3 * done.targets * model.facts.vocab_size,
        calls=1.5 * reached * _calls(model, done, update, modules),
    ).plus(adapters)


def decoding(
    model: Shape, update: Update | None, batches: float, prompt: float, new: float, *, batch: float, adapted: bool
) -> Work:
    """Answers of `new` tokens to prompts, in batches: a pass for all of the prompts, then one for each token."""
    modules = moving(model, update) if adapted and update is not None else None
    opening = Passes(passes=batches, sequences=batches, tokens=batches * batch * prompt, targets=0.0, length=prompt)
    drawn = Passes(
        passes=batches * new,
        sequences=0.0,
        tokens=batches * batch * new,
        targets=batches * batch * new,
        length=prompt + new / 2,
    )
    each = forward(model, drawn, update if adapted else None, modules)
    first = forward(model, opening, update if adapted else None, modules) if prompt else Work()
    read = drawn.passes * (_matrices(model, layered=True) + model.head)
    return first.plus(each._replace(calls=0.0, decoded=each.calls, weights=read))


def likelihood(model: Shape, rows: float, sequences: float, tokens: float, targets: float, kind: Kind) -> Work:
    """Rows scored without gradients; `sequences`, `tokens` and `targets` of each."""
    passes = math.ceil(rows * tokens / TOKEN_CAP[kind]) if rows else 0
    done = Passes(
        passes=passes,
        sequences=rows * sequences,
        tokens=rows * tokens,
        targets=rows * targets,
        length=tokens / sequences,
    )
    return forward(model, done, None, None)


def share_reached(model: Shape, update: Update) -> float:
    """The share of the layers that the backward pass goes through."""
    return min(1.0, update.layers / model.layers) if isinstance(update, TopLayers) else 1.0


def _matrices(model: Shape, *, layered: bool) -> float:
    """Weights that each token is multiplied with; shared layers count as often as they are used."""
    reuse = model.layers / model.stored_layers
    return sum(m.numbers * count * (reuse if m.layered else 1) for m, count in model.linear if m.layered == layered)


def _attended(model: Shape, tokens: float, length: float) -> float:
    """FLOPs of scores and of what they weigh; the half of them that a decoder sees."""
    seen = length if model.facts.family == "encoder" else length / 2
    return 4 * tokens * seen * model.attention_width * model.layers


def _calls(model: Shape, done: Passes, update: Update | None, modules: Moving | None) -> float:
    layers = model.layers * (_LAYER_CALLS * done.passes + _SEQUENCE_CALLS * done.sequences)
    adapters = 0.0
    if update is not None and modules is not None:
        each = _CALLS.get(update.kind, _LORA_CALLS)
        adapters = each * done.passes * sum(count for _, count in modules.modules)
    return layers + adapters + _PASS_CALLS * done.passes


def _adapter_forward(done: Passes, update: Update | None, modules: Moving | None) -> Work:
    """What adapters add to a pass: for each token, and for each pass whatever its tokens."""
    if update is None or modules is None or not modules.modules:
        return Work()
    sites = modules.modules
    outputs = sum(m.outputs * n for m, n in sites)
    inputs = sum(m.inputs * n for m, n in sites)
    numbers = sum(m.numbers * n for m, n in sites)
    tokens, passes = done.tokens, done.passes
    match update:
        case Lora() | RsLora() | Pissa() | LoraPlus() | QLora() | AdaLora():
            return Work(flops=2 * tokens * modules.numbers, elements=2 * tokens * outputs)
        case Dora(rank=rank):  # the norm of each whole weight, in every pass
            return Work(
                flops=2 * tokens * modules.numbers
                + 2 * passes * rank * (numbers + sum(m.inputs**2 * n for m, n in sites)),
                elements=4 * tokens * outputs + 5 * passes * numbers,
            )
        case Vera(rank=rank):
            return Work(
                flops=2 * tokens * rank * (inputs + outputs), elements=tokens * (2 * rank * len(sites) + 3 * outputs)
            )
        case Oft(block=block):
            return Work(
                flops=2 * tokens * inputs * block + 8 * passes * inputs * block * block,
                elements=3 * tokens * inputs + 8 * passes * inputs * block,
            )
        case Ia3():
            return Work(elements=2 * tokens * modules.numbers)
        case _:
            return Work()
