"""Suggest what to try next with a larger budget, from the stored rows of the job."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from luthier.report import ComparisonReport
from search.format import count, count_of
from search.methods import ALGORITHM_OF, Interval
from search.report.caveats import SEEDS
from search.report.importance import RATE, axes_of, relative_ranks
from search.report.inputs import Case, Tried
from search.space.axes import RANKS
from search.space.learning_rate import multiplier

EDGE = 0.15  # a value within this share of a range (on its log scale) from an end counts as at the edge
CLOSE = 0.01  # of the logarithm of a value: the same value but for rounding
ENOUGH_OTHERS = 4  # designs besides the winner that show a trend
TREND = 0.2  # least correlation of the others' ranks with the value
FALLING = 0.02  # relative decrease of the loss between the last two fifths of training that counts as falling


def next_steps(case: Case, comparisons: Sequence[ComparisonReport]) -> tuple[str, ...]:
    """Return suggestions, the most promising first. Nothing in the data proves that they would help, or speaks against
    them."""
    won = case.winner
    if won is None:
        return ()
    falling = tuple(_falling(case))
    found = [
        *_edges(case, won, falling=bool(falling)),
        *falling,
        *_barely_tried(case),
        *_uncertain(case, won, comparisons),
    ]
    return tuple(found)


def _edges(case: Case, won: Tried, *, falling: bool) -> Iterator[str]:
    """Hyperparameters of the winner at the edge of the searched range, where the other designs point beyond it.

    `falling`: the winner's training was too short, which contradicts fewer epochs.
    """
    space, design = case.space, won.past.design
    if space is None:
        return
    first = design.stages[0]
    facts = case.facts.get(design.architecture.base)
    ranges: list[tuple[str, str, float, Interval | Sequence[float]]] = [
        ("batch size", "batch size", first.optimiser.batch_size, space.batch_sizes),
        ("epochs", "number of epochs", first.optimiser.epochs, space.epochs),
    ]
    if facts is not None and not space.rates:
        rate = f"learning rate multiplier (learning rate {first.optimiser.learning_rate:.3g})"
        ranges.insert(0, (RATE, rate, multiplier(first, facts.hidden_size), space.multipliers))
    rank = getattr(first.update, "rank", None)
    if rank is not None and rank in RANKS:
        ranges.append(("rank", "rank", rank, RANKS))
    for stage in design.stages:
        for setting in ALGORITHM_OF[stage.algorithm.kind].searched:
            value = getattr(stage.algorithm, setting.field)
            if setting.axis in space.settings and not isinstance(value, str):
                named = f"{setting.field.replace('_', ' ')} of {setting.algorithm}"
                ranges.append((named, named, value, space.settings[setting.axis]))
    for axis, name, value, searched in ranges:
        side, low, high = _edge(value, searched)
        if side is None or (axis == "epochs" and side == "lower" and falling):
            continue
        if _points_beyond(case, won, axis, value, upwards=side == "upper"):
            wanted = "larger" if side == "upper" else "smaller"
            yield (
                f"The winner's {name} is {value:.3g}, at the {side} end of the searched range ({low:g} to {high:g}), "
                f"and the other designs are better towards this end. Search {wanted} values."
            )


def _points_beyond(case: Case, won: Tried, axis: str, value: float, *, upwards: bool) -> bool:
    """Return whether no design has a value beyond the winner's, and the others rank better towards it."""
    ranks = relative_ranks(case.history)
    found: list[tuple[float, float]] = []
    for tried in case.designs:
        other = axes_of(tried.past.design, case.facts).get(axis)
        if tried.number == won.number or tried.number not in ranks or not isinstance(other, int | float):
            continue
        found.append((math.log(max(other, 1e-12)), ranks[tried.number]))
    values = [one for one, _ in found]
    limit = math.log(max(value, 1e-12)) + (CLOSE if upwards else -CLOSE)
    if any(one > limit if upwards else one < limit for one in values):
        return False
    if len(found) < ENOUGH_OTHERS or len(set(values)) < 2 or len({rank for _, rank in found}) < 2:
        return False
    trend = float(np.corrcoef(np.array(found).T)[0, 1])  # ranks: 0 is the best
    return (-trend if upwards else trend) >= TREND


def _edge(value: float, axis: Interval | Sequence[float]) -> tuple[str | None, float, float]:
    if isinstance(axis, Interval):
        low, high = axis.low, axis.high
        place = math.log(max(value, 1e-12) / low) / math.log(high / low) if high > low else 0.5
        return ("upper" if place >= 1 - EDGE else "lower" if place <= EDGE else None), low, high
    low, high = min(axis), max(axis)
    if low == high:
        return None, low, high
    return ("upper" if value >= high else "lower" if value <= low else None), low, high


def _falling(case: Case) -> Iterator[str]:
    """A training that was too short.

    Under `cosine` its loss had not converged. Under `constant` a falling loss proves nothing, as the training goes on
    beyond its best moment; but the validation score was best at the last step that the limit of epochs allows.
    """
    assert case.winner is not None, "a search without a winner has no next steps"
    stages = case.winner.past.design.stages
    if case.winner.past.design.self_ending:
        length = case.winner.lengths[-1] if case.winner.lengths else None
        cut = [one for one in case.winner.lengths or () if one.ended == "budget" and one.improving]
        if cut:
            long = count_of(float(f"{cut[-1].epochs:.3g}"))
            yield (
                f"The winner's validation score was still improving when the budget cut its training after {long}. "
                "Give a new job more device-seconds (search.device_seconds) or time (search.deadline)."
            )
            return
        if length is not None and length.steps == length.trained and length.epochs >= stages[-1].optimiser.epochs:
            yield (
                f"The winner's validation score was still improving when its training reached the limit of "
                f"{count_of(length.epochs)}. Raise search.pin.epochs."
            )
        return
    fifth = len(case.curve) // 5
    if fifth < 4:
        return
    before, last = (sum(part) / fifth for part in (case.curve[-2 * fifth : -fifth], case.curve[-fifth:]))
    if before > 0 and (before - last) / before > FALLING:
        yield (
            f"The winner's training loss was still falling at the end: from {before:.3g} in the second-to-last fifth "
            f"of the steps to {last:.3g} in the last fifth. Search more epochs (search.pin.epochs)."
        )


def _barely_tried(case: Case) -> Iterator[str]:
    """Recipes and weight updates of the search space that were tried at most once."""
    space = case.space
    if space is None:
        return
    trained = [tried.past.design for tried in case.designs if tried.past.design.stages]
    recipes = Counter(design.recipe for design in trained)
    updates: Counter[str] = Counter(design.stages[0].update.kind for design in trained)
    names = dict.fromkeys(name for model in space.models for name in model.updates)
    for noun, counts, possible in (("Recipes", recipes, space.recipes), ("Weight updates", updates, tuple(names))):
        for times, tried in ((0, "never tried"), (1, "tried only once")):
            found = [name for name in possible if counts[name] == times]
            if found:
                yield f"{noun} {tried}: {', '.join(found)}."


def _uncertain(case: Case, won: Tried, comparisons: Sequence[ComparisonReport]) -> Iterator[str]:
    """Comparisons that need more data."""
    close = [one for one in comparisons if one.verdict == "not distinguishable" and one.against != "untuned base"]
    for one in close:
        yield (
            f"The winner and the {one.against} (trial {one.number}) are not significantly different on "
            f"{count(one.rows, 'test row')}. Use more test rows, or more repeats (search.confirmations)."
        )
    seeds = len(case.seeds(won.number))
    if seeds < SEEDS:
        yield f"The winner was trained with only {count(seeds, 'seed')}. Use more repeats (search.confirmations)."
