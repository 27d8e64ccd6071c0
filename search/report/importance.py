"""What each axis of the space was worth in a job, from its trials.

Two figures for each axis. *Share*: how much of the variance of the trials' standing goes with the axis: one-way
analysis of variance of the ranks, epsilon squared, which takes off what as many values would explain by chance (Kelley
1935).
Ranks, because one diverged trial would otherwise be all the variance there is. Axes that hang together share what they
explain: a search is no balanced experiment, and the shares do not add up to 1. *Worth*: how much worse the best design
would be if only those had been tried that keep the default's value on this axis.

A trial that was paused at a rung enters by its standing: each pair of trials is compared where both were scored last,
and a trial's rank is the share of the others that it beats. For trials that all ran to the end that is their rank.
Of designs that were trained from several seeds the first one counts, so that all are compared on like terms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
from pydantic import Field

from luthier.design import Design, Frozen
from luthier.models.base_model import ModelFacts
from luthier.trial import RUNGS, TrialState
from search.methods import ALGORITHM_OF
from search.policy import ranking
from search.policy.history import Past
from search.policy.ranking import DEFAULT
from search.space.learning_rate import default_learning_rate
from search.space.samplers import Value

Group = Literal["learning algorithm", "weight update", "architecture", "hyperparameters"]

AS_IT_IS: Final = "as it is"
ENOUGH_TRIALS: Final = 10
ENOUGH_OF_A_VALUE: Final = 3
BLOCK: Final = 256  # designs that are compared with all others at a time
FEW_VALUES: Final = 5  # up to so many numbers are groups of their own; more are cut into thirds

_GROUPS: Final[Mapping[str, Group]] = {
    "learning algorithm": "learning algorithm",
    "weight update": "weight update",
    "later stages' update": "weight update",
    "placement": "weight update",
    "base model": "architecture",
    "edits": "architecture",
}


class Worth(Frozen):
    """What an axis was worth."""

    axis: str
    group: Group = Field(description="which of the four axes it belongs to, the task being given")
    values: int = Field(ge=1, description="different values that were tried")
    trials: int = Field(ge=0, description="scored designs that have the axis")
    share: float | None = Field(
        default=None, ge=0, le=1, description="of the variance of the relative_ranks; None where nothing varied"
    )
    weak: bool = Field(description="whether there were too few trials to make much of the share")
    default: str | None = Field(default=None, description="the plain default's value, where it has the axis")
    best: str | None = Field(default=None, description="the winner's value, where it has the axis")
    worth: float | None = Field(
        default=None,
        ge=0,
        description="how much worse the best design that keeps the default's value is than the best of all, in the "
        "objective's units",
    )


def axes_of(design: Design, facts: Mapping[str, ModelFacts]) -> dict[str, Value]:
    """A design's value on each axis that it has."""
    if not design.stages:
        return {}
    architecture, first = design.architecture, design.stages[0]
    base = facts.get(architecture.base)
    found: dict[str, Value] = {
        "learning algorithm": design.recipe,
        "weight update": first.update.kind,
        "base model": architecture.base,
        "edits": ", ".join(architecture.edits().values()) or AS_IT_IS,
        "batch size": first.optimiser.batch_size,
        "epochs": first.optimiser.epochs,
    }
    if base is not None:
        usual = default_learning_rate(first.algorithm.kind, first.update.kind, base.hidden_size)
        found["learning rate"] = float(f"{first.optimiser.learning_rate / usual:.2g}")
    for field in ("rank", "placement", "tokens", "block"):
        if (value := getattr(first.update, field, None)) is not None:
            found[field] = value
    if len(design.stages) > 1:
        later = design.stages[1].update
        found["later stages' update"] = "the same" if later == first.update else later.kind
    for stage in design.stages:
        for setting in ALGORITHM_OF[stage.algorithm.kind].searched:
            name = f"{setting.field.replace('_', ' ')} of {setting.algorithm}"
            found[name] = getattr(stage.algorithm, setting.field)
    return found


def importance(history: Sequence[Past], facts: Mapping[str, ModelFacts]) -> list[Worth]:
    """Every axis that any scored design has, the four axes first and in each the largest share first."""
    ranks = relative_ranks(history)
    scored = [past for past in history if past.number in ranks]
    values = {past.number: axes_of(past.design, facts) for past in scored}
    found = {past.number: past.value for past in ranking.rank(history) if past.value is not None}
    names = list(dict.fromkeys(name for having in values.values() for name in having))
    worths = [_worth(name, found, values, ranks) for name in names]
    order = list(dict.fromkeys(_GROUPS.values()))
    return sorted(worths, key=lambda worth: (_place(worth.group, order), -(worth.share or 0.0), worth.axis))


def relative_ranks(history: Sequence[Past]) -> dict[int, float]:
    """By number, the share of the other scored designs that each is worse than: 0 is the best, ties count half.

    The untuned model and the confirmations are left out.
    """
    scores = {past.number: _scores(past) for past in history if past.design.stages and past.confirms is None}
    numbers = [number for number, found in scores.items() if any(score is not None for score in found)]
    if not numbers:
        return {}
    table = np.array([[np.nan if s is None else s for s in scores[number]] for number in numbers])
    found: list[float] = []
    for start in range(0, len(numbers), BLOCK):
        block = table[start : start + BLOCK]
        lead = np.full((len(block), len(table)), np.nan)  # over the others, where both were scored last
        for mine, theirs in zip(block.T, table.T, strict=True):  # at each rung, then at the end
            ahead = np.subtract.outer(mine, theirs)
            lead = np.where(np.isnan(ahead), lead, ahead)
        itself = np.arange(len(block))
        lead[itself, start + itself] = np.nan
        others = np.count_nonzero(~np.isnan(lead), axis=1)
        worse = np.count_nonzero(lead > 0, axis=1) + 0.5 * np.count_nonzero(lead == 0, axis=1)
        found += np.where(others > 0, worse / np.maximum(others, 1), 0.5).tolist()
    return dict(zip(numbers, found, strict=True))


def _scores(past: Past) -> list[float | None]:
    at_rungs: list[float | None] = [rung_score.rank_key[0] for rung_score in past.measured[: len(RUNGS)]]
    at_rungs += [None] * (len(RUNGS) - len(at_rungs))
    whole = past.value if past.state is TrialState.COMPLETE else None
    return [*at_rungs, whole]


def _worth(
    name: str,
    found: Mapping[int, float],
    values: Mapping[int, Mapping[str, Value]],
    ranks: Mapping[int, float],
) -> Worth:
    """`found` are the objectives of the complete designs, the winner's first; `values` of all that were scored."""
    having = [number for number, axes in values.items() if name in axes]
    groups = _grouped([values[number][name] for number in having])
    counts = Counter(groups)
    usual = [number for number in counts.values() if number >= ENOUGH_OF_A_VALUE]
    default = values.get(DEFAULT, {}).get(name)
    best = next((values[number].get(name) for number in found), None)
    keeping = [value for number, value in found.items() if values[number].get(name, default) == default]
    worth = None if default is None or not keeping else min(keeping) - min(found.values())
    return Worth(
        axis=name,
        group=_GROUPS.get(name, "hyperparameters"),
        values=len({values[number][name] for number in having}),
        trials=len(having),
        share=_explained([ranks[number] for number in having], groups),
        weak=len(having) < ENOUGH_TRIALS or len(usual) < 2,
        default=None if default is None else said(default),
        best=None if best is None else said(best),
        worth=worth,
    )


def _grouped(values: Sequence[Value]) -> list[Value]:
    """The values as they are; of many numbers, which third they are in."""
    numbers = [value for value in values if isinstance(value, (int, float))]
    if len(numbers) < len(values) or len(set(numbers)) <= FEW_VALUES:
        return list(values)
    low, high = np.quantile(numbers, [1 / 3, 2 / 3])
    return [int(value > low) + int(value > high) for value in numbers]


def _explained(ranks: Sequence[float], groups: Sequence[Value]) -> float | None:
    """Epsilon squared; None where there is one group, or no freedom left within the groups."""
    total = float(np.var(ranks)) * len(ranks) if ranks else 0.0
    count, kinds = len(ranks), len(set(groups))
    if kinds < 2 or count <= kinds or total == 0.0:
        return None
    within = 0.0
    for kind in set(groups):
        part = [value for value, group in zip(ranks, groups, strict=True) if group == kind]
        within += float(np.var(part)) * len(part)
    return min(1.0, max(0.0, 1 - (within / (count - kinds)) / (total / (count - 1))))


def said(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _place(group: Group, order: Sequence[Group]) -> int:
    return order.index(group) if group in order else len(order)
