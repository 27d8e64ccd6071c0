"""Memory of a trial in bytes, by what holds it.

Activations kept for the backward pass are counted tensor by tensor, as in Korthikanti et al. (2022), section 4.1. The
layers here differ: attention stores no scores, rows have no padding, and logits are computed for targets only.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from luthier.updates import Update
from search.cost.flops import Kind, share_reached
from search.methods import UPDATE_OF
from search.methods.amounts import Moving, Shape

FLOAT: Final = 4  # bytes: weights, gradients and optimiser states are always float32


class Memory(NamedTuple):
    """Bytes held at one moment, by what holds them."""

    process: float = 0.0  # 1: the worker process before the trial starts
    weights: float = 0.0  # of the model; on a CPU also of the unedited base model
    copies: float = 0.0  # reference weights, reward models, weights being saved
    gradients: float = 0.0
    optimiser: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    sampling: float = 0.0  # key/value cache and logits during generation
    scoring: float = 0.0  # activations and logits of a pass without gradients


def kept_per_token(model: Shape, update: Update, modules: Moving, length: float, kind: Kind) -> float:
    """Return the bytes kept for the backward pass, per token."""
    hidden, inner, width, keys = model.hidden, model.inner, model.attention_width, model.kv_width
    trains_norms = UPDATE_OF[update.kind].cost.trains_norms
    residual = 2 * hidden  # inputs of the two norms
    normed = 2 * hidden * (2 if trains_norms else 1)  # their outputs; those before the weight only if it trains
    attention = 3 * width + 2 * keys
    if model.kv_heads != model.facts.heads:
        attention += 2 * (width - keys)
    feed_forward = (4 if model.gated else 2) * inner
    layer = residual + normed + attention + feed_forward
    adapter = UPDATE_OF[update.kind].cost.kept_per_token(update, modules)
    size = FLOAT if kind != "cuda" else 3  # autocast: mostly bfloat16, but float32 for norms
    return size * (share_reached(model, update) * model.layers * layer + adapter)


def kept_once(update: Update, modules: Moving) -> float:
    """Return the bytes kept for the backward pass, independent of the number of tokens."""
    return FLOAT * UPDATE_OF[update.kind].cost.kept_once(update, modules)


def scoring_bytes(model: Shape, tokens: float, targets: float) -> float:
    """Return the bytes of a pass without gradients: the activations of one layer, and the logits."""
    layer = 4 * model.hidden + (3 if model.gated else 2) * model.inner
    return FLOAT * (tokens * layer + 2 * targets * model.facts.vocab_size)


def sampling_bytes(model: Shape, size: float, prompt: float, new: float, kind: Kind) -> float:
    """Return the bytes of generating a batch of answers: the key/value cache, the prompts' activations, the logits."""
    cache = size * (prompt + new) * 2 * model.kv_width * (model.layers + 1)  # one more layer while it grows
    layer = size * prompt * (4 * model.hidden + 3 * model.inner)
    width = FLOAT if kind != "cuda" else 2  # autocast: bfloat16
    return width * (cache + layer) + 3 * FLOAT * size * model.facts.vocab_size
