"""Rank a job's trials by their score on the validation rows; ties go to the cheaper trial.

The untuned base is a baseline, not a candidate: it wins only if no trained design is complete.

Where the validation rows are few, repeats are trained and scored on further splits of the rows. Some splits are harder
than others by more than designs differ, so means over different splits do not compare. Designs are ranked by what their
means would be on the first split, on which all are scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from luthier.metrics import objective_value, rank_key
from luthier.task import Objective
from luthier.trial import Metrics, TrialState
from luthier.values import Frozen
from search.policy.history import Past, RungScore

UNTUNED, DEFAULT = 0, 1  # the numbers of the baselines


class Choice(Frozen):
    """The winner, and whether it is strictly better than each baseline; False if the baseline has no score."""

    trial: Past
    beats_base: bool
    beats_default: bool


def rung_score(metrics: Metrics, objective: Objective) -> RungScore:
    """Return a trial's score at a rung. Raises MissingMetric if the judge did not report the objective.

    Trials are ranked by their progress: early in the training preference accuracy hardly predicts the final value, and
    the mean margin does.
    """
    return RungScore(objective_value(metrics, objective), rank_key(metrics, objective))


def rank(history: Sequence[Past]) -> list[Past]:
    """Return the complete trials of trained designs, best first: by value, then device-seconds, then number.

    The value of a repeated design is the mean over its seeds. Repeated designs come before others, because the best of
    many single runs is partly lucky. The default was not chosen as the best of many, so it may come first without them.
    """
    repeated, found = {past.confirms for past in history} - {None}, comparable_means(history)
    of_repeated = min((found[number] for number in repeated if number in found), default=-math.inf)
    first = repeated | {DEFAULT} if found.get(DEFAULT, math.inf) < of_repeated else repeated
    designs = [past for past in _complete(history) if past.design.stages and past.confirms is None]
    return sorted(
        designs,
        key=lambda past: (past.number not in first, found[past.number], past.device_seconds, past.number),
    )


def finalists(history: Sequence[Past], count: int, extended_from: int = 0) -> list[Past]:
    """Return the best complete trials so far, without the default. They are repeated, and their weights are kept.

    Once repeats have begun, the finalists stay. In a search that was extended, designs since trial `extended_from`
    compete with the means of those repeated before, so that a better one replaces a finalist.
    """
    if not extended_from:
        return [past for past in rank(history) if past.number != DEFAULT][:count]
    begun = [past for past in history if past.confirms is None or past.number < extended_from]
    found = comparable_means(begun)
    designs = [past for past in rank(begun) if past.number != DEFAULT]
    return sorted(designs, key=lambda past: (found[past.number], past.device_seconds, past.number))[:count]


def mean_value(past: Past, history: Sequence[Past]) -> float:
    """Return the objective of a complete trial's design, averaged over its seeds."""
    return means(history)[past.number]


def best(history: Sequence[Past]) -> Choice | None:
    """Return the winner so far; None if no trial is complete."""
    ranked = rank(history) or _complete(history)
    if not ranked:
        return None
    return Choice(
        trial=ranked[0],
        beats_base=_beats(ranked[0], history, UNTUNED),
        beats_default=_beats(ranked[0], history, DEFAULT),
    )


def _complete(history: Sequence[Past]) -> list[Past]:
    return [past for past in history if past.state is TrialState.COMPLETE]


def means(history: Sequence[Past]) -> dict[int, float]:
    """Return the mean objective over the seeds of each design, by the number of its first trial."""
    values: dict[int, list[float]] = {}
    for past in _complete(history):
        assert past.value is not None, "complete trials have a value"
        values.setdefault(past.number if past.confirms is None else past.confirms, []).append(past.value)
    return {number: sum(found) / len(found) for number, found in values.items()}


def comparable_means(history: Sequence[Past]) -> dict[int, float]:
    """Return `means`, less what each is better or worse by for the splits that it is of.

    The numbers of all designs compare with one another. Without further splits they are the means.
    """
    effects, splits = split_effects(history), dict[int, list[int]]()
    for past in _complete(history):
        splits.setdefault(past.number if past.confirms is None else past.confirms, []).append(past.split)
    return {
        number: mean - sum(effects[split] for split in splits[number]) / len(splits[number])
        for number, mean in means(history).items()
    }


def split_effects(history: Sequence[Past]) -> dict[int, float]:
    """Return how much higher the objective is on each split than on the first one, which has 0.

    It is the mean over the designs that are scored on both.
    """
    effects = {0: 0.0}
    scored = _by_split(history)
    for split in sorted({split for found in scored.values() for split in found} - {0}):
        apart = [found[split] - found[0] for found in scored.values() if split in found and 0 in found]
        effects[split] = sum(apart) / len(apart) if apart else 0.0
    return effects


def on_same_rows(history: Sequence[Past], one: int, other: int) -> tuple[float, float]:
    """Return the mean objectives of two complete designs over the splits that both are scored on."""
    scored = _by_split(history)
    shared = sorted(scored[one].keys() & scored[other].keys())
    first, second = (sum(scored[number][split] for split in shared) / len(shared) for number in (one, other))
    return first, second


def _by_split(history: Sequence[Past]) -> dict[int, dict[int, float]]:
    """Return the objective of each design by split, as means over its seeds there."""
    values: dict[int, dict[int, list[float]]] = {}
    for past in _complete(history):
        assert past.value is not None, "complete trials have a value"
        design = values.setdefault(past.number if past.confirms is None else past.confirms, {})
        design.setdefault(past.split, []).append(past.value)
    return {
        number: {split: sum(found) / len(found) for split, found in splits.items()} for number, splits in values.items()
    }


def _beats(winner: Past, history: Sequence[Past], number: int) -> bool:
    baseline = next((past for past in _complete(history) if past.number == number), None)
    found = comparable_means(history)
    return baseline is not None and found[winner.number] < found[number]
