"""Parameter importance: how much each axis of the search space mattered in a job, from its trials.

There are two figures for each axis:

- *share*: the share of the variance of the trials' ranks that the axis explains. It is the epsilon squared of a one-way
  analysis of variance, which corrects for what the same number of values would explain by chance (Kelley 1935). Ranks
  are used because a single diverged trial would dominate the variance of the scores. The shares do not add up to 1: a
  search is not a balanced experiment, and correlated axes explain the same variance.
- *worth*: how much worse the best design would be if the axis had kept the default's value in every trial.

Trials stopped at a rung count too. Each pair of trials is compared at the latest point where both were scored. A
trial's relative rank is the share of the other trials that beat it. For the share, only the first seed of a repeated
design counts, so that all designs are compared by single runs; the worth compares means over seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
from pydantic import Field

from luthier.design import Design
from luthier.models.base_model import ModelFacts
from luthier.trial import TrialState
from luthier.values import Frozen
from search.methods import ALGORITHM_OF
from search.policy import asha, ranking
from search.policy.history import Past
from search.policy.ranking import DEFAULT
from search.space.learning_rate import multiplier, rate_words
from search.space.samplers import Value

Group = Literal["learning algorithm", "weight update", "architecture", "hyperparameters"]

UNCHANGED: Final = "as it is"
RATE: Final = "learning rate"  # the axis; its values are multipliers of the default
ENOUGH_TRIALS: Final = 10
ENOUGH_OF_A_VALUE: Final = 3
BLOCK: Final = 256  # designs compared with all others in one array
FEW_VALUES: Final = 5  # up to this many different numbers form one group each; more are split into terciles

_GROUPS: Final[Mapping[str, Group]] = {
    "learning algorithm": "learning algorithm",
    "weight update": "weight update",
    "later stages' update": "weight update",
    "placement": "weight update",
    "base model": "architecture",
    "edits": "architecture",
}


class Worth(Frozen):
    """The importance of an axis."""

    axis: str
    group: Group = Field(description="which of the searched axes it belongs to")
    values: int = Field(ge=1, description="number of different values that were tried")
    trials: int = Field(ge=0, description="number of scored designs that have the axis")
    share: float | None = Field(
        default=None, ge=0, le=1, description="of the variance of the relative ranks; None if nothing varied"
    )
    weak: bool = Field(description="whether there were too few trials for a reliable share")
    default: str | None = Field(default=None, description="the plain-LoRA default's value, if it has the axis")
    best: str | None = Field(default=None, description="the winner's value, if it has the axis")
    default_text: str | None = Field(default=None, description="`default` for people: a learning rate as a number too")
    best_text: str | None = Field(default=None, description="`best` for people: a learning rate as a number too")
    worth: float | None = Field(
        default=None,
        ge=0,
        description="how much worse the best design with the default's value is than the best of all, in units of "
        "the objective; both are means over their seeds",
    )


def axes_of(design: Design, facts: Mapping[str, ModelFacts]) -> dict[str, Value]:
    """Return a design's value on each axis that it has."""
    if not design.stages:
        return {}
    architecture, first = design.architecture, design.stages[0]
    base = facts.get(architecture.base)
    found: dict[str, Value] = {
        "learning algorithm": design.recipe,
        "weight update": first.update.kind,
        "base model": architecture.base,
        "edits": ", ".join(architecture.edits().values()) or UNCHANGED,
        "batch size": first.optimiser.batch_size,
        "epochs": first.optimiser.epochs,
    }
    if first.optimiser.schedule != "cosine":
        found["schedule"] = first.optimiser.schedule
    if base is not None:  # relative to its default, because the rates of different updates do not compare
        found[RATE] = multiplier(first, base.hidden_size)
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
    """Return the importance of every axis that a scored design has: grouped by axis, largest share first."""
    ranks = relative_ranks(history)
    scored = [past for past in history if past.number in ranks]
    values = {past.number: axes_of(past.design, facts) for past in scored}
    means = ranking.means(history)
    found = {past.number: means[past.number] for past in ranking.rank(history)}
    names = list(dict.fromkeys(name for having in values.values() for name in having))
    worths = [_worth(name, found, values, ranks) for name in names]
    designs = {past.number: past.design for past in history}
    shown = {"default": designs.get(DEFAULT), "best": designs.get(next(iter(found), DEFAULT))}
    worths = [worth.model_copy(update=_rates(worth, shown, facts)) if worth.axis == RATE else worth for worth in worths]
    order: list[Group] = [*dict.fromkeys(_GROUPS.values()), "hyperparameters"]
    return sorted(worths, key=lambda worth: (order.index(worth.group), -(worth.share or 0.0), worth.axis))


def _rates(worth: Worth, designs: Mapping[str, Design | None], facts: Mapping[str, ModelFacts]) -> dict[str, str]:
    """Return the learning rates of the default and of the best design as numbers, each with its multiplier."""
    return {
        f"{field}_text": rate_words(design.stages[0], facts[design.architecture.base].hidden_size)
        for field, design in designs.items()
        if design is not None and getattr(worth, field) is not None
    }


def relative_ranks(history: Sequence[Past]) -> dict[int, float]:
    """Return, by number, the share of the other scored designs that beat each: 0 is the best, ties count half.

    The untuned base and repeats are left out.
    """
    rungs = asha.rungs(history)
    scores = {past.number: _scores(past, rungs) for past in history if past.design.stages and past.confirms is None}
    numbers = [number for number, found in scores.items() if any(score is not None for score in found)]
    if not numbers:
        return {}
    table = np.array([[np.nan if s is None else s for s in scores[number]] for number in numbers])
    found: list[float] = []
    for start in range(0, len(numbers), BLOCK):
        block = table[start : start + BLOCK]
        lead = np.full((len(block), len(table)), np.nan)  # over the others, at the latest point where both were scored
        for mine, theirs in zip(block.T, table.T, strict=True):  # at each rung, then at the end
            ahead = np.subtract.outer(mine, theirs)
            lead = np.where(np.isnan(ahead), lead, ahead)
        itself = np.arange(len(block))
        lead[itself, start + itself] = np.nan
        others = np.count_nonzero(~np.isnan(lead), axis=1)
        worse = np.count_nonzero(lead > 0, axis=1) + 0.5 * np.count_nonzero(lead == 0, axis=1)
        found += np.where(others > 0, worse / np.maximum(others, 1), 0.5).tolist()
    return dict(zip(numbers, found, strict=True))


def _scores(past: Past, rungs: int) -> list[float | None]:
    found = [past.score_at(rung) for rung in range(rungs)]
    at_rungs = [None if score is None else score.rank_key[0] for score in found]
    whole = past.value if past.state is TrialState.COMPLETE else None
    return [*at_rungs, whole]


def _worth(
    name: str,
    found: Mapping[int, float],
    values: Mapping[int, Mapping[str, Value]],
    ranks: Mapping[int, float],
) -> Worth:
    """`found`: objectives of the complete designs, as means over their seeds, best first. `values`: axis values of all
    scored designs."""
    having = [number for number, axes in values.items() if name in axes]
    groups = _grouped([values[number][name] for number in having])
    counts = Counter(groups)
    usual = [number for number in counts.values() if number >= ENOUGH_OF_A_VALUE]
    default = values.get(DEFAULT, {}).get(name)
    best = next((values[number].get(name) for number in found), None)
    keeping = [value for number, value in found.items() if values[number].get(name, default) == default]
    worth = None if default is None or not keeping else max(0.0, keeping[0] - next(iter(found.values())))
    return Worth(
        axis=name,
        group=_GROUPS.get(name, "hyperparameters"),
        values=len({values[number][name] for number in having}),
        trials=len(having),
        share=_explained([ranks[number] for number in having], groups),
        weak=len(having) < ENOUGH_TRIALS or len(usual) < 2,
        default=None if default is None else _text(default),
        best=None if best is None else _text(best),
        default_text=None if default is None else _text(default),
        best_text=None if best is None else _text(best),
        worth=worth,
    )


def _grouped(values: Sequence[Value]) -> list[Value]:
    """Group the values for the analysis of variance: many different numbers are replaced by their tercile."""
    numbers = [value for value in values if isinstance(value, (int, float))]
    if len(numbers) < len(values) or len(set(numbers)) <= FEW_VALUES:
        return list(values)
    low, high = np.quantile(numbers, [1 / 3, 2 / 3])
    return [int(value > low) + int(value > high) for value in numbers]


def _explained(ranks: Sequence[float], groups: Sequence[Value]) -> float | None:
    """Epsilon squared; None with a single group, or with no degrees of freedom within the groups."""
    total = float(np.var(ranks)) * len(ranks) if ranks else 0.0
    count, kinds = len(ranks), len(set(groups))
    if kinds < 2 or count <= kinds or total == 0.0:
        return None
    within = 0.0
    for kind in set(groups):
        part = [value for value, group in zip(ranks, groups, strict=True) if group == kind]
        within += float(np.var(part)) * len(part)
    return min(1.0, max(0.0, 1 - (within / (count - kinds)) / (total / (count - 1))))


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"
