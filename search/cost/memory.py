"""Bytes that a trial holds at once, by what holds them.

What is kept for the backward pass is counted as in Korthikanti et al. (2022), section 4.1, tensor by tensor, for the
layers as they are here: attention that keeps no scores, rows without padding, logits for targets alone.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from luthier.updates import Update
from search.cost.flops import Kind, share_reached
from search.methods import UPDATE_OF
from search.methods.amounts import Moving, Shape

FLOAT: Final = 4  # bytes: weights, gradients and optimiser state are float32 everywhere


class Memory(NamedTuple):
    """Bytes held at once, by what holds them."""

    process: float = 0.0  # 1: everything that is there before a trial begins
    weights: float = 0.0  # of the model, and of the base as registered on a CPU
    copies: float = 0.0  # references, reward models, weights on their way to files
    gradients: float = 0.0
    optimiser: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    sampling: float = 0.0  # keys and values, and logits of answers while they are drawn
    scoring: float = 0.0  # what a pass without gradients holds


def kept_per_token(model: Shape, update: Update, modules: Moving, length: float, kind: Kind) -> float:
    """Bytes kept for the backward pass, for each token."""
    hidden, inner, width, keys = model.hidden, model.inner, model.attention_width, model.kv_width
    in_place = UPDATE_OF[update.kind].cost.trains_norms
    residual = 2 * hidden  # what each norm reads
    normed = 2 * hidden * (2 if in_place else 1)  # what it makes, with its weight and without
    attention = 3 * width + 2 * keys
    if model.kv_heads != model.facts.heads:
        attention += 2 * (width - keys)
    wide = (4 if model.gated else 2) * inner
    layer = residual + normed + attention + wide
    own = UPDATE_OF[update.kind].cost.kept_per_token(update, modules)
    size = FLOAT if kind != "cuda" else 3  # autocast: most are bfloat16, the norms' float32
    return size * (share_reached(model, update) * model.layers * layer + own)


def kept_once(update: Update, modules: Moving) -> float:
    """Bytes kept for the backward pass whatever the tokens."""
    return FLOAT * UPDATE_OF[update.kind].cost.kept_once(update, modules)


def scoring_bytes(model: Shape, tokens: float, targets: float) -> float:
    """Bytes of a pass without gradients: one layer's, and the logits."""
    layer = 4 * model.hidden + (3 if model.gated else 2) * model.inner
    return FLOAT * (tokens * layer + 2 * targets * model.facts.vocab_size)


def sampling_bytes(model: Shape, size: float, prompt: float, new: float, kind: Kind) -> float:
    """Keys and values of all layers, once more while they grow, and the logits of a batch of answers."""
    kept = size * (prompt + new) * 2 * model.kv_width * (model.layers + 1)
    layer = size * prompt * (4 * model.hidden + 3 * model.inner)
    width = FLOAT if kind != "cuda" else 2  # autocast: bfloat16
    return width * (kept + layer) + 3 * FLOAT * size * model.facts.vocab_size
