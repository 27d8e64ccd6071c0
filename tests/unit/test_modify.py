"""Editing a clone changes only what was edited: every other field of the design stays, searched or not."""

from collections.abc import Mapping
from typing import Any

import pytest

from luthier.algorithms import Dpo, Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.errors import IllegalDesign, UserError
from luthier.task import DataKind, Pin
from luthier.updates import Dora, Full, Lora
from search.space.learning_rate import default_learning_rate
from search.space.modify import changed
from search.space.samplers import Value
from search.space.space import Space
from tests.unit.search_samples import SMOL, TINY, space_of

# No value is the default or one of those that a search tries.
OWN = Optimiser(learning_rate=3.217e-4, batch_size=5, epochs=8.0, warmup=0.21, weight_decay=0.13)
LATER = Optimiser(learning_rate=1.234e-5, batch_size=7, epochs=2.5, warmup=0.3, weight_decay=0.4)
EDITED = Architecture(base="smol", layers=23, kv_heads=1, depth_rule="block_influence", window=77)
ADAPTER = Lora(rank=24, alpha=7, placement="mlp")
TWO = Design(
    architecture=EDITED,
    stages=(
        Stage(algorithm=Sft(), update=ADAPTER, optimiser=OWN),
        Stage(algorithm=Dpo(beta=0.77), update=ADAPTER, optimiser=LATER),
    ),
)
ONE = Design(architecture=Architecture(base="smol"), stages=(Stage(algorithm=Sft(), update=ADAPTER, optimiser=OWN),))


def preferences(pin: Pin) -> Space:
    return space_of(DataKind.PREFERENCE, pin, models=(SMOL, TINY), length=400)


def pairs(pin: Pin) -> Space:
    return space_of(DataKind.PAIRS, pin, models=(SMOL, TINY))


def fields(value: Any, place: str = "") -> dict[str, Any]:
    """All values of a design by place, defaults written out."""
    if isinstance(value, dict):
        return {k: v for name, part in value.items() for k, v in fields(part, f"{place}.{name}".lstrip(".")).items()}
    if isinstance(value, list):
        return {k: v for index, part in enumerate(value) for k, v in fields(part, f"{place}[{index}]").items()}
    return {place: value}


def all_fields(design: Design) -> dict[str, Any]:
    """`model_dump` leaves some defaults out."""
    found = fields(design.model_dump(mode="json"))
    found |= {f"architecture.{name}": value for name, value in design.architecture}
    for index, stage in enumerate(design.stages):
        found |= {f"stages[{index}].update.{name}": value for name, value in stage.update}
    return found


def differing(before: Design, after: Design) -> dict[str, Any]:
    old, new = all_fields(before), all_fields(after)
    return {place: new.get(place) for place in {*old, *new} if old.get(place) != new.get(place)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"epochs": 3}, {"stages[0].optimiser.epochs": 3.0, "stages[1].optimiser.epochs": 3.0}),
        ({"batch_size": 16}, {"stages[0].optimiser.batch_size": 16, "stages[1].optimiser.batch_size": 16}),
        ({"rank": 64}, {"stages[0].update.rank": 64, "stages[1].update.rank": 64}),
        ({"placement": "attention"}, {f"stages[{i}].update.placement": "attention" for i in (0, 1)}),
        ({"beta": 0.3}, {"stages[1].algorithm.beta": 0.3}),
        ({"layers": 20}, {"architecture.layers": 20}),
        ({"kv_heads": 3}, {"architecture.kv_heads": None}),
        ({"window": 128}, {"architecture.window": 128}),
        ({"depth_rule": "late"}, {"architecture.depth_rule": "late"}),
    ],
)
def test_one_change_changes_one_field_of_each_stage_that_has_it(
    change: Mapping[str, Value], expected: Mapping[str, Any]
) -> None:
    assert differing(TWO, changed(TWO, change, preferences)) == expected


def test_a_changed_rate_is_taken_as_it_is_and_later_stages_follow() -> None:
    found = changed(TWO, {"learning_rate": 2.2222e-3}, preferences)
    assert found.stages[0].optimiser.learning_rate == 2.2222e-3
    assert differing(TWO, found).keys() == {f"stages[{i}].optimiser.learning_rate" for i in (0, 1)}
    ratio = [default_learning_rate(kind, "lora", SMOL.facts.hidden_size) for kind in ("sft", "dpo")]
    assert found.stages[1].optimiser.learning_rate == pytest.approx(2.2222e-3 * ratio[1] / ratio[0], rel=0.005)


def test_epochs_stay_where_something_else_is_changed() -> None:
    found = changed(ONE, {"rank": 8}, pairs)
    assert found.stages[0].optimiser == OWN
    assert found.stages[0].update == Lora(rank=8, alpha=7, placement="mlp")


def test_another_update_keeps_rank_and_placement_and_the_multiplier_of_the_rate() -> None:
    found = changed(ONE, {"update": "dora"}, pairs).stages[0]
    assert found.update == Dora(rank=24, placement="mlp")
    assert found.optimiser == OWN, "dora has the default rate of lora"
    whole = changed(ONE, {"update": "full"}, pairs).stages[0]
    assert whole.update == Full()
    usual = [default_learning_rate("sft", kind, SMOL.facts.hidden_size) for kind in ("lora", "full")]
    assert whole.optimiser.learning_rate == pytest.approx(OWN.learning_rate * usual[1] / usual[0], rel=0.005)
    assert whole.optimiser.model_copy(update={"learning_rate": OWN.learning_rate}) == OWN


def test_another_model_keeps_the_multiplier_of_the_rate_and_all_else() -> None:
    found = changed(ONE, {"model": "tiny"}, pairs)
    usual = [default_learning_rate("sft", "lora", model.facts.hidden_size) for model in (SMOL, TINY)]
    assert found.stages[0].optimiser.learning_rate == pytest.approx(OWN.learning_rate * usual[1] / usual[0], rel=0.005)
    assert differing(ONE, found).keys() == {"architecture.base", "stages[0].optimiser.learning_rate"}


def test_a_stage_that_is_added_takes_its_length_from_the_first() -> None:
    found = changed(ONE, {"algorithm": "sft+dpo"}, preferences)
    assert found.stages[0] == ONE.stages[0]
    assert found.stages[1].update == ADAPTER
    assert (found.stages[1].optimiser.epochs, found.stages[1].optimiser.batch_size) == (8.0, 5)


def test_no_change_changes_nothing() -> None:
    assert changed(TWO, {"epochs": 8, "batch_size": 5}, preferences).stages[0] == TWO.stages[0]
    assert differing(ONE, changed(ONE, {"rank": 24}, pairs)) == {}


def test_what_cannot_be_is_refused_by_name() -> None:
    for change, param in (
        ({"tokens": 8}, "change.tokens"),
        ({"rank": 5000}, "search.pin.rank"),
        ({"learning_rate": 0}, "search.pin.learning_rate"),
        ({"learning_rate": 3}, "search.pin.learning_rate"),
        ({"learning_rate": 1e-4, "learning_rate_multiplier": 2}, "search.pin.learning_rate"),
        ({"epoch": 3}, "change.epoch"),
    ):
        with pytest.raises(UserError) as refused:
            changed(ONE, change, pairs)
        assert refused.value.param == param
    with pytest.raises(IllegalDesign):
        changed(ONE, {"update": "nothing"}, pairs)
