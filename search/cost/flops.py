"""The work of passes through a model, in machine-independent amounts: forward, backward, and token-by-token generation.

A matrix product of T tokens with N weights takes 2·T·N FLOPs. Its backward pass takes as many for the gradient of the
inputs, and as many for that of the weights (Kaplan et al. 2020, section 2.1: 6·N per token if all weights train).
"""

from __future__ import annotations

import math
from typing import Final, Literal

from luthier.updates import Update
from search.cost.parameters import moving
from search.methods import UPDATE_OF
from search.methods.amounts import Moving, Passes, Shape, Work

Kind = Literal["cpu", "cuda", "mps"]

TOKEN_CAP: Final[dict[Kind, int]] = {"cpu": 2048, "cuda": 16384, "mps": 4096}  # tokens of one pass, as in the workers

# Operations per layer and pass, per layer and sequence, and per pass. Rough figures; their price is fitted.
_LAYER_CALLS, _SEQUENCE_CALLS, _PASS_CALLS = 34, 5, 60


def forward(model: Shape, done: Passes, update: Update | None, modules: Moving | None) -> Work:
    """Return the work of forward passes, with the adapter of `update` if `modules` is given."""
    dense = 2 * done.tokens * _matrices(model, layered=True) + 2 * done.targets * _matrices(model, layered=False)
    adapters = _adapter_forward(done, update, modules)
    return Work(
        flops=dense + _attended(model, done.tokens, done.length) + 2 * done.targets * model.head,
        elements=done.tokens * model.layers * (12 * model.hidden + 4 * model.inner),
        logits=3 * done.targets * model.facts.vocab_size,
        calls=_calls(model, done, update, modules),
    ).plus(adapters)


def backward(model: Shape, done: Passes, update: Update, modules: Moving) -> Work:
    """Return the work of the backward passes that train `update`."""
    reached = share_reached(model, update)
    dense = 2 * done.tokens * _matrices(model, layered=True) + 2 * done.targets * _matrices(model, layered=False)
    head = 2 * done.targets * model.head
    weight_gradients = {"none": 0.0, "layers": dense * reached, "all": dense + head}[
        UPDATE_OF[update.kind].cost.weight_gradients
    ]
    adapters = _adapter_forward(done, update, modules).times(2.0)
    return Work(
        flops=reached * (dense + 2.5 * _attended(model, done.tokens, done.length)) + head + weight_gradients,
        elements=reached * 2 * done.tokens * model.layers * (12 * model.hidden + 4 * model.inner),
        logits=3 * done.targets * model.facts.vocab_size,
        calls=1.5 * reached * _calls(model, done, update, modules),
    ).plus(adapters)


def decoding(
    model: Shape, update: Update | None, batches: float, prompt: float, new: float, *, batch: float, adapted: bool
) -> Work:
    """Return the work of generating `new` tokens for batches of prompts: one pass for the prompts, one for each token.

    `adapted`: the update is an adapter, not yet merged.
    """
    modules = moving(model, update) if adapted and update is not None else None
    prompts = Passes(passes=batches, sequences=batches, tokens=batches * batch * prompt, targets=0.0, length=prompt)
    generated = Passes(
        passes=batches * new,
        sequences=0.0,
        tokens=batches * batch * new,
        targets=batches * batch * new,
        length=prompt + new / 2,
    )
    per_token = forward(model, generated, update if adapted else None, modules)
    first = forward(model, prompts, update if adapted else None, modules) if prompt else Work()
    weights_read = generated.passes * (_matrices(model, layered=True) + model.head)
    return first.plus(per_token._replace(calls=0.0, decoded=per_token.calls, weights=weights_read))


def likelihood(model: Shape, rows: float, sequences: float, tokens: float, targets: float, kind: Kind) -> Work:
    """Return the work of scoring rows without gradients; `sequences`, `tokens` and `targets` are per row."""
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
    """Return the share of the layers that the backward pass goes through."""
    return UPDATE_OF[update.kind].cost.reaches(update, model)


def _matrices(model: Shape, *, layered: bool) -> float:
    """Return the weights that each token is multiplied with; shared layers count as often as they are used."""
    reuse = model.layers / model.stored_layers
    return sum(m.numbers * count * (reuse if m.layered else 1) for m, count in model.linear if m.layered == layered)


def _attended(model: Shape, tokens: float, length: float) -> float:
    """Return the FLOPs of attention scores and weighted values; causal masking halves them in a decoder."""
    seen = length if model.facts.family == "encoder" else length / 2
    return 4 * tokens * seen * model.attention_width * model.layers


def _calls(model: Shape, done: Passes, update: Update | None, modules: Moving | None) -> float:
    """Return the number of operations that are launched."""
    layers = model.layers * (_LAYER_CALLS * done.passes + _SEQUENCE_CALLS * done.sequences)
    adapters = 0.0
    if update is not None and modules is not None:
        adapters = UPDATE_OF[update.kind].cost.calls * done.passes * modules.count
    return layers + adapters + _PASS_CALLS * done.passes


def _adapter_forward(done: Passes, update: Update | None, modules: Moving | None) -> Work:
    """Return the work that an adapter adds to forward passes."""
    if update is None or modules is None:
        return Work()
    return UPDATE_OF[update.kind].cost.forward(update, modules, done)
