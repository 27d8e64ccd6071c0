"""The front keeps what nothing beats in everything; parameters follow the edits."""

import pytest

from luthier.design import Architecture, Design
from luthier.updates import Prefix, Prompt
from search.report.pareto import Price, front, parameters
from tests.integration.store_samples import design as sample
from tests.unit.search_samples import SMOL, TINY
from workers.cache import Base
from workers.train.architectures import build


def price(number: int, value: float, parameters: int | None = 100, seconds: float = 10.0) -> Price:
    return Price(number=number, value=value, parameters=parameters, device_seconds=seconds)


def test_what_another_beats_in_everything_is_not_on_the_front() -> None:
    best, cheaper, small, beaten = (
        price(1, 1.0, seconds=90),
        price(2, 1.2, seconds=20),
        price(3, 1.5, 50, seconds=90),
        price(4, 1.3, seconds=30),
    )
    assert front([beaten, small, cheaper, best]) == [best, cheaper, small]


def test_being_as_good_in_all_but_one_thing_is_not_enough() -> None:
    assert front([price(1, 1.0, seconds=5), price(2, 1.0, seconds=6)]) == [price(1, 1.0, seconds=5)]


def test_of_equals_the_first_stays() -> None:
    assert front([price(5, 1.0), price(2, 1.0)]) == [price(2, 1.0)]


def test_unknown_parameters_never_beat_known_ones() -> None:
    assert [found.number for found in front([price(1, 1.0, None), price(2, 1.1, 100)])] == [1, 2]
    assert front([]) == []


def edited(base: str = "tiny", **edits: int) -> Design:
    return Design(architecture=Architecture(base=base, **edits))


def test_a_base_as_it_is_has_the_parameters_that_its_facts_say() -> None:
    assert parameters(edited(), TINY.facts) == TINY.facts.parameters
    assert parameters(sample().model_copy(update={"architecture": Architecture(base="tiny")}), TINY.facts) == 1_900_000


def test_layers_that_are_dropped_take_their_share_along() -> None:
    facts = SMOL.facts
    of_layers = facts.parameters - facts.vocab_size * facts.hidden_size
    found = parameters(edited("smol", layers=20), facts)
    assert found == pytest.approx(facts.parameters - of_layers / 3, abs=1)


def test_pooled_heads_take_their_projections_along() -> None:
    facts = TINY.facts  # 4 heads of 32: keys and values from 128 to 32 wide in each of 6 layers
    assert facts.parameters - parameters(edited(kv_heads=1), facts) == 6 * 2 * 128 * (128 - 32)


@pytest.mark.parametrize("edits", [{"layers": 4}, {"kv_heads": 2}, {"layers": 3, "kv_heads": 1}, {}])
def test_the_estimate_is_near_the_count_of_the_edited_model(edits: dict[str, int], tiny: Base) -> None:
    architecture = Architecture(base="tiny", **edits)
    counted = build(tiny.model, architecture).num_parameters()
    estimate = parameters(Design(architecture=architecture), tiny.entry.facts)
    assert estimate == pytest.approx(counted, rel=0.01)


def test_virtual_tokens_are_extra() -> None:
    plain = sample().model_copy(update={"architecture": Architecture(base="tiny")})

    def with_update(update: Prompt | Prefix) -> Design:
        return plain.model_copy(update={"stages": (plain.stages[0].model_copy(update={"update": update}),)})

    assert parameters(with_update(Prompt(tokens=8)), TINY.facts) - 1_900_000 == 8 * 128
    assert parameters(with_update(Prefix(tokens=8)), TINY.facts) - 1_900_000 == 8 * 2 * 6 * 128
