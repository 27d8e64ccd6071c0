"""The edits of the architecture, one declaration each. What an edit does to a model is in workers/train/architectures.

Each edit is an axis of values: the layers or heads to keep, the width of the attention window, the RoPE scaling factor.
One value of each keeps the base model unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from luthier.design import DepthRule, RopeRule
from luthier.models.base_model import ModelFacts
from search.methods.spec import EditSpec, RowLengths

DEPTH_SHARES: Final = (1, 7 / 8, 3 / 4)
WHOLE: Final = 0  # value of `window` that keeps the model's own attention window
WINDOWS: Final = (1024, 512, 256, 128)
OWN: Final = 1.0  # value of `rope_factor` that keeps the model's own context
ROPE_FACTORS: Final = (4.0, 2.0)
MAX_ROPE_FACTOR: Final = 64.0


def kv_head_choices(facts: ModelFacts) -> tuple[int, ...]:
    """Return the numbers of key/value heads that mean pooling can produce: the divisors, the model's own first.

    Encoders keep theirs: their architectures support only one key per query.
    """
    if facts.family == "encoder":
        return (facts.kv_heads,)
    return tuple(kept for kept in range(facts.kv_heads, 0, -1) if facts.kv_heads % kept == 0)


def _windows(facts: ModelFacts, rows: RowLengths) -> tuple[float, ...]:
    """Return the model's own window and the two widest ones that are shorter than long rows; others change nothing."""
    widest = facts.attention_window or 0
    return (WHOLE, *[window for window in WINDOWS if window < min(rows.seen, widest)][:2])


def _rope_factors(facts: ModelFacts, rows: RowLengths) -> tuple[float, ...]:
    """Return factors above 1 only if rows are longer than the model's context."""
    return (*ROPE_FACTORS, OWN) if rows.readable > facts.context else (OWN,)


EDITS: Final = (
    EditSpec(
        edit="layers",
        does="keeps some of the layers: all but a late block, or those of the highest block influence",
        possible=lambda facts: facts.layers > 1,
        otherwise="{model} has only one layer",
        own=lambda facts: facts.layers,
        searched=lambda facts, rows: tuple(
            dict.fromkeys(max(1, round(share * facts.layers)) for share in DEPTH_SHARES)
        ),
        takes=lambda facts, value: 1 <= value <= facts.layers,
        limits=lambda facts: ", ".join(map(str, range(facts.layers, 0, -1))),
        rule=("depth_rule", get_args(DepthRule)),
    ),
    EditSpec(
        edit="kv_heads",
        does="pools key and value heads into fewer (GQA), or into one (MQA)",
        possible=lambda facts: facts.family == "decoder" and facts.kv_heads > 1,
        otherwise="{model} has only one key/value head, or is an encoder, where the number is fixed",
        own=lambda facts: facts.kv_heads,
        searched=lambda facts, rows: kv_head_choices(facts),
        takes=lambda facts, value: value in kv_head_choices(facts),
        limits=lambda facts: ", ".join(map(str, kv_head_choices(facts))),
    ),
    EditSpec(
        edit="window",
        does="limits attention to this many previous tokens",
        possible=lambda facts: facts.attention_window is not None,
        otherwise="the attention window of {model} ({architecture}) cannot be set in all layers",
        own=lambda facts: WHOLE,
        searched=_windows,
        takes=lambda facts, value: value == WHOLE or 0 < value < (facts.attention_window or 0),
        limits=lambda facts: f"1 to {widest - 1}" if (widest := facts.attention_window or 0) > 1 else "",
        always=f"{WHOLE} (the model's own)",
        ascending=True,
    ),
    EditSpec(
        edit="rope_factor",
        does="extends the context by RoPE scaling: YaRN, or linear",
        possible=lambda facts: facts.rope == "plain",
        otherwise="{model} ({architecture}) already uses RoPE scaling, or is of a family whose rotary positions (RoPE) "
        "cannot be scaled here",
        own=lambda facts: OWN,
        searched=_rope_factors,
        takes=lambda facts, value: value == OWN or (facts.rope == "plain" and OWN < value <= MAX_ROPE_FACTOR),
        limits=lambda facts: f"1 to {MAX_ROPE_FACTOR:g}" if facts.rope == "plain" else "",
        always=f"{OWN:g} (the model's own context)",
        rule=("rope_rule", get_args(RopeRule)),
    ),
)

EDIT_OF: Final[Mapping[str, EditSpec]] = {spec.edit: spec for spec in EDITS}
