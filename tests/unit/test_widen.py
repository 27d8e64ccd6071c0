"""Numeric axes that nobody pinned grow where the best design lies on an end, and it is tried beyond that end."""

from collections.abc import Callable

import pytest

from luthier.design import Design
from luthier.task import DataKind, Pin
from search.methods import SETTINGS, Interval
from search.policy.history import Past
from search.policy.priors import baselines
from search.policy.propose import propose
from search.policy.widen import ENOUGH, FACTOR, STEPS, beyond, widened
from search.space.axes import BATCH_SIZES, MULTIPLIERS, RANKS
from search.space.space import Space
from tests.unit.search_samples import AtRandom, complete, space_of

LORA = Pin(algorithm=("sft",), update=("lora",))
Score = Callable[[Design], float]


def history(space: Space, score: Score, count: int = 12) -> list[Past]:
    designs = [space.sample(AtRandom(number)) for number in range(count)]
    untuned, default = baselines(space)
    first = [complete(0, untuned, 1e9), complete(1, default, score(default))]
    return first + [complete(number, design, score(design)) for number, design in enumerate(designs, start=2)]


def batch_size(design: Design) -> float:
    return design.stages[0].optimiser.batch_size


def rank(design: Design) -> float:
    return design.stages[0].update.rank  # type: ignore[union-attr]


def rate(design: Design) -> float:
    return design.stages[0].optimiser.learning_rate


def test_an_axis_stays_as_it_is_while_few_designs_are_scored() -> None:
    space = space_of(pin=LORA)
    few = history(space, batch_size, ENOUGH - 2)
    assert widened(space, few) == space
    assert list(beyond(space, few)) == []


@pytest.mark.parametrize(
    ("score", "grown"),
    [
        (batch_size, (2, *BATCH_SIZES)),
        (lambda design: -batch_size(design), (*BATCH_SIZES, 64)),
    ],
)
def test_a_list_grows_by_one_value_on_the_side_of_the_best_design(score: Score, grown: tuple[int, ...]) -> None:
    space = space_of(pin=LORA)
    assert widened(space, history(space, score)).batch_sizes == grown


def test_the_rank_grows_too() -> None:
    space = space_of(pin=LORA)
    assert widened(space, history(space, lambda design: -rank(design))).ranks == (*RANKS, 128)


def test_an_interval_grows_by_a_factor() -> None:
    space = space_of(pin=LORA)
    tried = history(space, lambda design: -rate(design))
    best = space.model_copy(update={"multipliers": Interval(low=MULTIPLIERS.high / 1.1, high=MULTIPLIERS.high)})
    tried.append(complete(40, best.sample(AtRandom(3)), -1e9))
    assert widened(space, tried).multipliers == Interval(low=MULTIPLIERS.low, high=MULTIPLIERS.high * FACTOR)


def test_a_best_design_inside_grows_nothing() -> None:
    space = space_of(pin=LORA)
    inside = history(space, lambda design: abs(batch_size(design) - 8) + abs(rank(design) - 16), 60)
    assert widened(space, inside).batch_sizes == BATCH_SIZES
    assert widened(space, inside).ranks == RANKS


def test_pinned_axes_do_not_grow() -> None:
    pin = Pin(algorithm=("sft",), update=("lora",), batch_size=(4, 8), rank=(4, 8), learning_rate_multiplier=(0.5, 1.0))
    space = space_of(pin=pin)
    assert space.open_axes == ()
    for score in (batch_size, lambda design: -batch_size(design)):
        assert widened(space, history(space, score)) == space


def test_an_algorithms_coefficients_grow_within_what_it_takes() -> None:
    space = space_of(DataKind.PREFERENCE, Pin(algorithm=("dpo",), update=("lora",)))
    axis = next(name for name in space.settings if SETTINGS[name].algorithm == "dpo")
    start = space.settings[axis]
    assert isinstance(start, Interval)
    narrow = space.model_copy(update={"settings": {axis: Interval(low=start.low, high=start.low * 1.01)}})
    tried = history(space, lambda design: 1.0)
    tried.append(complete(40, narrow.sample(AtRandom(3)), 0.0))
    grown = widened(space, tried).settings[axis]
    assert isinstance(grown, Interval)
    assert (grown.low, grown.high) == (start.low / FACTOR, start.high)


def test_the_best_design_is_tried_beyond_the_end_that_it_lies_on() -> None:
    space = space_of(pin=LORA)
    tried = history(space, batch_size)
    best = min(tried, key=lambda past: (past.value or 0.0, past.number)).design
    moved = [design for design in beyond(space, tried) if batch_size(design) == 2]
    assert [design.stages[0].update for design in moved] == [best.stages[0].update]
    assert moved[0].stages[0].optimiser.learning_rate == best.stages[0].optimiser.learning_rate


def test_nothing_is_tried_beyond_an_end_twice() -> None:
    space = space_of(pin=LORA)
    tried = history(space, batch_size)
    [moved] = [design for design in beyond(space, tried) if batch_size(design) == 2]
    tried.append(complete(40, moved, 1e9))
    assert [design for design in beyond(space, tried) if batch_size(design) == 2] == []


def test_a_search_whose_optimum_lies_outside_finds_it() -> None:
    """Each smaller batch is better down to one row."""
    space = space_of(pin=LORA)
    tried = history(space, batch_size)
    for number in range(40, 52):
        design = propose(space, tried, seed=0, trials=60)
        assert design is not None
        tried.append(complete(number, design, batch_size(design)))
    assert min(batch_size(past.design) for past in tried if past.design.stages) == 1
    assert widened(space, tried).batch_sizes == (1, 2, *BATCH_SIZES), "one row is the hard limit"


def test_an_axis_grows_at_most_some_times() -> None:
    space = space_of(pin=LORA)
    tried = history(space, lambda design: -batch_size(design))
    for number in range(40, 60):
        design = next((one for one in beyond(space, tried) if batch_size(one) > max(BATCH_SIZES)), None)
        if design is None:
            break
        tried.append(complete(number, design, -batch_size(design)))
    assert max(widened(space, tried).batch_sizes) <= max(BATCH_SIZES) * 2**STEPS


def test_all_that_was_tried_lies_in_the_widened_space() -> None:
    space = space_of(pin=LORA)
    tried = history(space, batch_size)
    for number in range(40, 48):
        design = propose(space, tried, seed=1, trials=60)
        assert design is not None
        tried.append(complete(number, design, batch_size(design) if number < 44 else 1e9 - number))
        wide = widened(space, tried)
        assert all(wide.decode(wide.encode(past.design)) == past.design for past in tried[2:])
