"""The portfolio of first designs: chosen so that its designs help beside each other, on tables in today's terms."""

import pytest

from bench.atlas.table import tables
from bench.portfolio import SIZE, Shape, gains, greedy, shape, worth
from search.policy.priors import priors
from search.policy.sampler import PRIORS_FIRST


def of_rate(rate: float) -> Shape:
    return Shape(update="full", rate=rate, rank=None, batch_size=4, epochs=1.0)


LOW, MIDDLE, HIGH, SIDE = map(of_rate, (0.5, 1.0, 2.0, 8.0))
KNOWN = {
    "one": {"sft": {LOW: 0.9, MIDDLE: 0.8, HIGH: 0.0, SIDE: 0.1}},
    "other": {"sft": {LOW: 0.0, MIDDLE: 0.5, HIGH: 0.9, SIDE: 0.2}, "clm": {LOW: 0.0, MIDDLE: 0.6, HIGH: 0.7}},
}


def test_the_first_design_is_good_everywhere_and_the_next_helps_where_it_was_not() -> None:
    assert greedy(KNOWN, KNOWN.keys(), [LOW, MIDDLE, HIGH, SIDE])[:3] == [MIDDLE, HIGH, LOW]
    assert greedy(KNOWN, ["one"], [LOW, MIDDLE, HIGH, SIDE])[0] == LOW
    assert worth([LOW, HIGH], KNOWN["other"]) == pytest.approx(0.8)
    assert worth([SIDE], KNOWN["other"]) == pytest.approx(0.1), "what a recipe has not recorded gains nothing"


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.task.name)
def test_the_first_priors_gain_most_of_what_the_recorded_designs_do(table) -> None:
    known = gains(table)
    hidden = table.task.space.models[0].hidden_size
    first = [shape(design, hidden) for design in priors(table.task.space)[:PRIORS_FIRST]]
    assert PRIORS_FIRST == SIZE
    assert worth(first, known) > 0.85
    assert all(max(of.values()) == pytest.approx(1.0) for of in known.values())


def test_the_tables_were_recorded_at_rates_around_the_default() -> None:
    for table in tables():
        rates = {one.rate for of in gains(table).values() for one in of if one.update == "full"}
        assert (min(rates), max(rates)) == (pytest.approx(0.125, abs=0.006), 2.0)
