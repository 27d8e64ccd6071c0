"""Learning rates as numbers: pinned for all designs, whatever their update's default, and shown with the multiplier."""

import pytest

from luthier.errors import IllegalDesign, UserError
from luthier.task import DataKind, Pin
from search.policy.priors import priors
from search.report.phrases import explained
from search.space.learning_rate import default_learning_rate
from tests.unit.search_samples import SMOL, samples, space_of


def test_every_design_has_one_of_the_pinned_rates_in_its_first_stage() -> None:
    space = space_of(pin=Pin(learning_rate=(3e-4, 1.2345e-5)))
    found = samples(space, 100)
    assert {design.stages[0].optimiser.learning_rate for design in found} == {3e-4, 1.2345e-5}
    assert len({design.stages[0].update.kind for design in found}) > 3
    for design in found:
        assert space.decode(space.encode(design)) == design


def test_later_stages_have_the_same_multiplier() -> None:
    pin = Pin(learning_rate=(3e-4,), algorithm=("sft+dpo",), update=("lora",))
    for design in samples(space_of(DataKind.PREFERENCE, pin), 20):
        first, second = (stage.optimiser.learning_rate for stage in design.stages)
        usual = [default_learning_rate(kind, "lora", 128) for kind in ("sft", "dpo")]
        assert first == 3e-4
        assert second == pytest.approx(3e-4 * usual[1] / usual[0], rel=0.005)


def test_priors_have_the_pinned_rates_too() -> None:
    found = priors(space_of(pin=Pin(learning_rate=(3e-4, 1e-3))))
    assert {design.stages[0].optimiser.learning_rate for design in found} == {3e-4, 1e-3}


@pytest.mark.parametrize(
    "pin",
    [
        Pin(learning_rate=(0.0,)),
        Pin(learning_rate=(-1e-4,)),
        Pin(learning_rate=(1e-4, 2.0)),
        Pin(learning_rate=()),
        Pin(learning_rate=(1e-4,), learning_rate_multiplier=(1.0,)),
    ],
)
def test_rates_that_cannot_be_are_refused(pin: Pin) -> None:
    with pytest.raises(UserError) as refused:
        space_of(pin=pin)
    assert refused.value.param == "search.pin.learning_rate"


def test_a_rate_outside_the_pins_is_not_in_the_space() -> None:
    design = samples(space_of(), 1)[0]
    with pytest.raises(IllegalDesign):
        space_of(pin=Pin(learning_rate=(0.5,))).encode(design)


def test_jobs_without_the_pin_keep_their_text() -> None:
    assert "learning_rate" not in Pin(learning_rate_multiplier=(2.0,)).model_dump(mode="json")


def test_a_design_says_its_rate_with_the_multiplier() -> None:
    design = samples(space_of(models=(SMOL,), pin=Pin(learning_rate=(3e-4,), update=("full",), algorithm=("sft",))), 1)[
        0
    ]
    times = 3e-4 / default_learning_rate("sft", "full", SMOL.facts.hidden_size)
    words = " ".join(dict(explained(design, SMOL.facts))["learning algorithm"])
    assert f"0.0003 (×{times:.2g})" in words
