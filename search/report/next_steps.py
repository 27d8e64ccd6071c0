"""What to try with ten times the budget: what the rows of this job point at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from luthier.report import ComparisonReport
from search.format import count
from search.methods import ALGORITHM_OF, Interval
from search.report.caveats import SEEDS
from search.report.inputs import Case, Tried
from search.space.axes import RANKS
from search.space.learning_rate import default_learning_rate

EDGE = 0.15  # of a range, on its natural scale: a best value that near to an end lies at the edge
FALLING = 0.02  # by which share the loss still falls from the last but one fifth of the training to the last


def next_steps(case: Case, comparisons: Sequence[ComparisonReport]) -> tuple[str, ...]:
    """Sentences, the most promising first. They suggest; nothing in the rows proves that they would help."""
    won = case.winner
    if won is None:
        return ()
    found = [
        *_edges(case, won),
        *_falling(case),
        *_barely_tried(case),
        *_uncertain(case, won, comparisons),
    ]
    return tuple(found)


def _edges(case: Case, won: Tried) -> Iterator[str]:
    """Values of the winner at the end of what was searched."""
    space, design = case.space, won.past.design
    if space is None:
        return
    first = design.stages[0]
    facts = case.facts.get(design.architecture.base)
    ranges: list[tuple[str, float, Interval | Sequence[float]]] = [
        ("batch size", first.optimiser.batch_size, space.batch_sizes),
        ("number of epochs", first.optimiser.epochs, space.epochs),
    ]
    if facts is not None:
        usual = default_learning_rate(first.algorithm.kind, first.update.kind, facts.hidden_size)
        multiplier = first.optimiser.learning_rate / usual
        ranges.insert(0, ("learning rate, relative to the default,", multiplier, space.multipliers))
    rank = getattr(first.update, "rank", None)
    if rank is not None and rank in RANKS:
        ranges.append(("rank", rank, RANKS))
    for stage in design.stages:
        for setting in ALGORITHM_OF[stage.algorithm.kind].searched:
            value = getattr(stage.algorithm, setting.field)
            if setting.axis in space.settings and not isinstance(value, str):
                named = f"{setting.field.replace('_', ' ')} of {setting.algorithm}"
                ranges.append((named, value, space.settings[setting.axis]))
    for name, value, axis in ranges:
        side, low, high = _edge(value, axis)
        if side is not None:
            beyond = "above" if side == "upper" else "below"
            yield (
                f"The winner's {name} is {value:.3g}, at the {side} end of what was searched ({low:g} to {high:g}): "
                f"search {beyond} it."
            )


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
    """A curve that had not come to rest."""
    fifth = len(case.curve) // 5
    if fifth < 4:
        return
    before, last = (sum(part) / fifth for part in (case.curve[-2 * fifth : -fifth], case.curve[-fifth:]))
    if before > 0 and (before - last) / before > FALLING:
        yield (
            f"The winner's training loss was still falling when it ended, from {before:.3g} in the last but one fifth "
            f"of the steps to {last:.3g} in the last: train it for longer."
        )


def _barely_tried(case: Case) -> Iterator[str]:
    space = case.space
    if space is None:
        return
    trained = [tried.past.design for tried in case.designs if tried.past.design.stages]
    recipes = Counter(design.recipe for design in trained)
    updates: Counter[str] = Counter(design.stages[0].update.kind for design in trained)
    names = dict.fromkeys(name for model in space.models for name in model.updates)
    for noun, counts, possible in (("programs", recipes, space.recipes), ("weight updates", updates, tuple(names))):
        never = [name for name in possible if not counts[name]]
        once = [name for name in possible if counts[name] == 1]
        said = [f"never tried: {', '.join(never)}"] if never else []
        said += [f"tried once: {', '.join(once)}"] if once else []
        if said:
            yield f"Of the {noun} that this search allows, {'; '.join(said)}."


def _uncertain(case: Case, won: Tried, comparisons: Sequence[ComparisonReport]) -> Iterator[str]:
    close = [one for one in comparisons if one.verdict == "not distinguishable" and one.against != "untuned base"]
    for one in close:
        yield (
            f"The winner and the {one.against} (trial {one.number}) cannot be told apart on "
            f"{count(one.rows, 'test row')}: more rows to test on, or more seeds of both (search.confirmations), would "
            "tell."
        )
    seeds = len(case.seeds(won.number))
    if seeds < SEEDS:
        yield f"The winner was trained from {count(seeds, 'seed')}: train it from more (search.confirmations)."
