"""Widen the numeric axes that nobody pinned where the best design lies on an end, until the best one lies inside.

An axis grows on the side of that end, at most STEPS times. Then the best design is tried with a value beyond its own
(`beyond`). Otherwise the best design might win only because nothing beyond the end was tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from luthier.design import Design
from luthier.errors import IllegalDesign
from search.methods import SETTINGS, UPDATE_OF, Interval, Values
from search.methods.spec import RANKS_OF_SEARCH
from search.policy.asha import overall_ranking
from search.policy.history import Past
from search.space.axes import BATCH_SIZE, MOST_RANK, MULTIPLIER, RANK
from search.space.learning_rate import default_learning_rate
from search.space.space import Space

ENOUGH: Final = 6  # scored designs before the best one counts
STEPS: Final = 3  # how often an axis grows at most, on each side
FACTOR: Final = 4.0  # by which an interval grows; a list grows by one value
BEYOND: Final = 2.0  # from the best design's value in an interval to the one that is tried beyond it
EDGE: Final = 0.1  # share of an interval, on a logarithmic scale, that counts as its end
CLOSE: Final = 1.01  # values within this factor are the same

FIELDS: Final = {MULTIPLIER: "multipliers", BATCH_SIZE: "batch_sizes", RANK: "ranks"}  # of Space, by axis


def widened(space: Space, history: Sequence[Past]) -> Space:
    """Return the space with its open axes grown. It contains all values that the trials have on these axes."""
    best = _best(history)
    tried = [past.design for past in history if past.design.stages]
    changes, settings = dict[str, Any](), dict(space.settings)
    for axis in space.open_axes:
        known = [value for design in tried if (value := _value(space, axis, design)) is not None]
        leading = None if best is None else _value(space, axis, best)
        grown = _start(space, axis)
        for upwards in (False, True):
            grown = _grown(space, axis, grown, known, leading, upwards=upwards)
        if axis in FIELDS:
            changes[FIELDS[axis]] = grown
        else:
            settings[axis] = grown
    return space.model_copy(update={**changes, "settings": settings})


def beyond(space: Space, history: Sequence[Past]) -> Iterator[Design]:
    """Yield variants of the best design. In each, one value that lies at an end of its axis is moved beyond that end.

    An axis is left out if a design of the same recipe and weight update was already tried there. `space` is the one
    before it was widened.
    """
    if (best := _best(history)) is None:
        return
    wide = widened(space, history)
    alike = [past.design for past in history if past.design.stages and _alike(past.design, best)]
    for axis in space.open_axes:
        if (value := _value(space, axis, best)) is None:
            continue
        known = [other for design in alike if (other := _value(space, axis, design)) is not None]
        for upwards in (False, True):
            if not _at_end(_start(space, axis), value, upwards=upwards):
                continue
            if any(_further(other, value, upwards=upwards) for other in known):
                continue
            following = _following(_start(wide, axis), value, upwards=upwards)
            if following is not None and (moved := _moved(wide, best, axis, following)) is not None:
                yield moved


def _best(history: Sequence[Past]) -> Design | None:
    ranked = overall_ranking(history)
    return ranked[0].design if len(ranked) >= ENOUGH else None


def _alike(one: Design, other: Design) -> bool:
    return one.recipe == other.recipe and one.stages[0].update.kind == other.stages[0].update.kind


def _start(space: Space, axis: str) -> Values:
    values: Values = getattr(space, FIELDS[axis]) if axis in FIELDS else space.settings[axis]
    return values


def _value(space: Space, axis: str, design: Design) -> float | None:
    """Return a design's value on an axis; None if it has none."""
    first = design.stages[0]
    match axis:
        case "learning_rate_multiplier":
            hidden_size = space.model(design.architecture.base).hidden_size
            usual = default_learning_rate(first.algorithm.kind, first.update.kind, hidden_size)
            return first.optimiser.learning_rate / usual
        case "batch_size":
            return first.optimiser.batch_size
        case "rank":
            return getattr(first.update, "rank", None) if _ranked(first.update.kind) else None
        case _:
            setting = SETTINGS[axis]
            stages = (stage for stage in design.stages if stage.algorithm.kind == setting.algorithm)
            return next((getattr(stage.algorithm, setting.field) for stage in stages), None)


def _ranked(update: str) -> bool:
    size = UPDATE_OF[update].size
    return size is not None and size.values == RANKS_OF_SEARCH


def _grown(
    space: Space, axis: str, values: Values, known: Sequence[float], leading: float | None, *, upwards: bool
) -> Values:
    for _ in range(STEPS):
        end = _end(values, upwards=upwards)
        passed = any(_further(value, end, upwards=upwards) for value in known)
        pressed = leading is not None and _at_end(values, leading, upwards=upwards)
        following = _next_end(values, upwards=upwards)
        if not (passed or pressed) or following is None or not _legal(space, axis, following):
            break
        values = _with(values, following, upwards=upwards)
    return values


def _end(values: Values, *, upwards: bool) -> float:
    if isinstance(values, Interval):
        return values.high if upwards else values.low
    return max(values) if upwards else min(values)


def _further(value: float, end: float, *, upwards: bool) -> bool:
    return value > end * CLOSE if upwards else value < end / CLOSE


def _at_end(values: Values, value: float, *, upwards: bool) -> bool:
    """Return whether a value lies on an end, or past it."""
    end = _end(values, upwards=upwards)
    if isinstance(values, Interval):
        end *= math.pow(values.high / values.low, -EDGE if upwards else EDGE)
    return value >= end / CLOSE if upwards else value <= end * CLOSE


def _next_end(values: Values, *, upwards: bool) -> float | None:
    """Return the next end of an axis that grows. A list goes on with the ratio of its last two values."""
    if isinstance(values, Interval):
        return values.high * FACTOR if upwards else values.low / FACTOR
    ordered = sorted(values, reverse=not upwards)
    if ordered[-1] <= 0 or (len(ordered) > 1 and ordered[-2] <= 0):
        return None
    ratio = ordered[-1] / ordered[-2] if len(ordered) > 1 else BEYOND if upwards else 1 / BEYOND
    following = ordered[-1] * ratio
    return round(following) if all(isinstance(value, int) for value in values) else following


def _with(values: Values, end: float, *, upwards: bool) -> Values:
    if isinstance(values, Interval):
        return Interval(low=values.low, high=end) if upwards else Interval(low=end, high=values.high)
    return (*values, end) if upwards else (end, *values)


def _legal(space: Space, axis: str, value: float) -> bool:
    match axis:
        case "learning_rate_multiplier":
            return True
        case "batch_size":
            return 1 <= value <= space.rows
        case "rank":
            return 1 <= value <= min(MOST_RANK, *(model.hidden_size for model in space.models))
        case _:
            return SETTINGS[axis].takes(value)


def _following(values: Values, value: float, *, upwards: bool) -> float | None:
    """Return the value to try beyond this one; None if the axis has none."""
    if isinstance(values, Interval):
        wanted = value * BEYOND if upwards else value / BEYOND
        return wanted if values.low <= wanted <= values.high else None
    left = [other for other in values if _further(other, value, upwards=upwards)]
    return min(left, key=lambda other: abs(math.log(max(other, 1e-9) / value))) if left and value > 0 else None


def _moved(space: Space, design: Design, axis: str, value: float) -> Design | None:
    """Return the design with this value on an axis; None if the space does not contain it."""
    try:
        answers = space.encode(design)
        name = axis
        if axis == RANK:
            name = next(name for name in answers if name.split("[")[0] == RANK)
        return space.decode({**answers, name: value})
    except (IllegalDesign, StopIteration):
        return None
