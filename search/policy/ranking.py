"""Which trial won: quality on the validation rows first, the cheaper one where quality is equal.

The untuned model is a yardstick, not a candidate: it is the answer only when nothing that was trained is complete.
"""

from __future__ import annotations

from collections.abc import Sequence

from luthier.design import Frozen
from luthier.errors import MissingMetric
from luthier.metrics import deciding
from luthier.task import Objective
from luthier.trial import Metrics, TrialState
from search.policy.history import Past, RungScore

UNTUNED, DEFAULT = 0, 1  # the numbers of the baselines


class Choice(Frozen):
    """The winner, and whether it is strictly better than each baseline; False too where the baseline has no score."""

    trial: Past
    beats_base: bool
    beats_default: bool


def objective_value(metrics: Metrics, objective: Objective) -> float:
    """The number to minimise: bits per byte for `perplexity`, minus the reward for `reward`.

    Raises MissingMetric where the judge did not report the metric.
    """
    metric = deciding(objective)
    value = metric.value(metrics)
    if value is None:
        raise MissingMetric(
            f"the objective is {objective}, but the judge reported no {metric.label}", param=f"metrics.{metric.name}"
        )
    return metric.sign * value


def rung_score(metrics: Metrics, objective: Objective) -> RungScore:
    """How a trial did at a rung. Raises MissingMetric where the judge did not report the objective.

    Preference accuracy counts the answers in order, and moves late and by whole pairs: at a ninth of the training it
    says next to nothing of the end. The margin, whose signs it counts, moves from the first steps, so trials are
    compared by it. Other rewards are compared as they are, and by the likelihood where those of a few rows are equal.
    """
    value = objective_value(metrics, objective)
    if objective == "reward" and metrics.margin is not None:
        return RungScore(value, (-metrics.margin, value))
    return RungScore(value, (value, metrics.bits_per_byte))


def rank(history: Sequence[Past]) -> list[Past]:
    """The complete trials of trained designs, best first: by value, then device-seconds, then number.

    The value of a trial that was confirmed from other seeds is the mean over all of them. Those that are confirmed come
    before those that are not: the best of many single runs owes some of its lead to luck, and a mean does not.
    """
    confirmed, found = {past.confirms for past in history}, means(history)
    designs = [past for past in _complete(history) if past.design.stages and past.confirms is None]
    return sorted(
        designs,
        key=lambda past: (past.number not in confirmed, found[past.number], past.device_seconds, past.number),
    )


def finalists(history: Sequence[Past], count: int) -> list[Past]:
    """The best complete trials so far, the default left out: those that are confirmed and whose weights are kept."""
    return [past for past in rank(history) if past.number != DEFAULT][:count]


def mean_value(past: Past, history: Sequence[Past]) -> float:
    """The objective of a complete trial's design, over the seeds that it was trained from."""
    return means(history)[past.number]


def best(history: Sequence[Past]) -> Choice | None:
    """The winner so far; None when no trial is complete."""
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
    """The objective of each design with complete trials, over its seeds, by the number of its first trial."""
    values: dict[int, list[float]] = {}
    for past in _complete(history):
        values.setdefault(past.number if past.confirms is None else past.confirms, []).append(_value(past))
    return {number: sum(found) / len(found) for number, found in values.items()}


def _beats(winner: Past, history: Sequence[Past], number: int) -> bool:
    baseline = next((past for past in _complete(history) if past.number == number), None)
    return baseline is not None and mean_value(winner, history) < mean_value(baseline, history)


def _value(past: Past) -> float:
    assert past.value is not None  # complete trials have one
    return past.value
