"""What pins and limits leave of the space of designs, and what they are refused for."""

from typing import Any

import pytest

from luthier.algorithms import Dpo, Ipo, Simpo
from luthier.errors import IllegalDesign, UserError
from luthier.task import DataKind, Pin
from luthier.updates import Pissa, Placed
from search.methods.updates import PISSA_MOST, RANDLORA_RANKS, VERA_RANKS
from search.space.learning_rate import default_learning_rate
from tests.unit.search_samples import SMOL, TINY, entry, later_updates_of, samples, space_of


def test_a_pinned_placement_holds_for_every_update_that_has_one() -> None:
    designs = samples(space_of(pin=Pin(placement=("mlp", "embeddings")), models=(TINY, entry("untied", tied=False))))
    placed = [u for design in designs if isinstance(u := design.stages[0].update, Placed)]
    assert {update.placement for update in placed} == {"mlp", "embeddings"}
    on_embeddings = space_of(pin=Pin(placement=("embeddings",)), models=(entry("untied", tied=False),))
    assert "pissa" not in on_embeddings.models[0].updates


def test_a_pin_on_updates_holds_for_later_stages_too() -> None:
    two = {"algorithm": ("sft+dpo", "sft+ipo")}
    assert later_updates_of(Pin(update=("lora",), **two)) == {"lora": {"same"}}
    assert later_updates_of(Pin(update=("dora",), **two)) == {"dora": {"same"}}
    assert later_updates_of(Pin(update=("dora", "full"), **two)) == {"dora": {"same", "full"}, "full": {"same"}}


def test_a_pin_on_places_holds_for_later_stages_too() -> None:
    pin = Pin(update=("lora", "full"), placement=("attention",), algorithm=("sft+dpo",))
    assert later_updates_of(pin) == {"lora": {"same", "full"}, "full": {"same"}}


def test_a_pinned_update_that_no_program_takes_is_refused() -> None:
    played = Pin(update=("prompt",), algorithm=("rloo",))
    with pytest.raises(IllegalDesign, match="prompt does not go with rloo") as refused:
        space_of(DataKind.PAIRS, played, rewarded=True)
    assert refused.value.param == "search.pin.update"
    with pytest.raises(IllegalDesign, match="adalora does not go with grpo"):
        space_of(DataKind.PAIRS, Pin(update=("lora", "adalora"), algorithm=("grpo",)), rewarded=True)


def test_programs_that_no_pinned_update_goes_with_are_left_out() -> None:
    assert "sft+rloo" in space_of(DataKind.PAIRS, rewarded=True).recipes
    assert space_of(DataKind.PAIRS, Pin(update=("prefix",)), rewarded=True).recipes == ("sft", "clm")


def test_pins_are_honoured_by_every_sample() -> None:
    pin = Pin(
        algorithm=("clm",),
        update=("dora", "full"),
        model=("smol",),
        layers=(3, 30),
        kv_heads=(1,),
        epochs=(0.25, 7),
        batch_size=(5,),
        learning_rate_multiplier=(10.0,),
    )
    designs = samples(space_of(pin=pin, models=(TINY, SMOL)))
    assert {design.recipe for design in designs} == {"clm"}
    assert {design.stages[0].update.kind for design in designs} == {"dora", "full"}
    assert {design.architecture.base for design in designs} == {"smol"}
    assert {design.architecture.layers for design in designs} == {3, None}
    assert {design.architecture.kv_heads for design in designs} == {1}
    assert {design.stages[0].optimiser.epochs for design in designs} == {0.25, 7.0}
    assert {design.stages[0].optimiser.batch_size for design in designs} == {5}
    rates = {design.stages[0].update.kind: design.stages[0].optimiser.learning_rate for design in designs}
    defaults = {kind: default_learning_rate("clm", kind, 576) for kind in ("full", "dora")}
    assert rates == {kind: pytest.approx(default * 10, rel=0.005) for kind, default in defaults.items()}


def test_a_pinned_rank_holds_for_every_low_rank_update_but_those_with_ranks_of_their_own() -> None:
    designs = samples(space_of(pin=Pin(algorithm=("sft",), rank=(6, 48))))
    ranks: dict[str, set[int]] = {}
    for design in designs:
        update = design.stages[0].update
        if hasattr(update, "rank"):
            ranks.setdefault(update.kind, set()).add(update.rank)
    assert ranks.pop("vera") <= set(VERA_RANKS)
    assert ranks.pop("randlora") <= set(RANDLORA_RANKS)
    assert ranks.pop("pissa") == {6}
    assert ranks == {key: {6, 48} for key in ("lora", "rslora", "dora", "lora_plus", "adalora")}
    wide = samples(space_of(pin=Pin(algorithm=("sft",), update=("pissa",), rank=(48,))), 5)
    assert {design.stages[0].update.rank for design in wide if isinstance(design.stages[0].update, Pissa)} == {
        PISSA_MOST
    }


def test_a_pinned_beta_is_taken_as_it_is() -> None:
    designs = samples(space_of(DataKind.PREFERENCE, Pin(algorithm=("dpo",), beta=(0.12345,))), 20)
    assert {design.stages[0].algorithm for design in designs} == {Dpo(beta=0.12345)}


def test_a_pinned_beta_is_that_of_its_own_algorithm() -> None:
    pin = Pin(algorithm=("ipo", "simpo", "orpo"), ipo_beta=(0.5,), simpo_beta=(3.0,), simpo_gamma=(0.7,))
    found = {design.stages[0].algorithm for design in samples(space_of(DataKind.PREFERENCE, pin), 50)}
    assert {algorithm for algorithm in found if algorithm.kind != "orpo"} == {Ipo(beta=0.5), Simpo(beta=3.0, gamma=0.7)}
    assert len(found) > 10  # orpo's is free


def test_a_pin_on_layers_leaves_only_the_models_that_have_so_many() -> None:
    assert [model.name for model in space_of(pin=Pin(layers=(20,)), models=(TINY, SMOL)).models] == ["smol"]


def test_the_order_of_a_pin_matters_for_models_only() -> None:
    one = Pin(update=("lora", "full"), layers=(4, 6), epochs=(3, 1, 1), model=("smol", "tiny"))
    other = Pin(update=("full", "lora"), layers=(6, 4), epochs=(1, 3), model=("tiny", "smol"))
    first, second = (space_of(pin=pin, models=(TINY, SMOL)) for pin in (one, other))
    assert first.model_copy(update={"models": second.models}) == second
    assert [model.name for model in first.models] == ["smol", "tiny"]


@pytest.mark.parametrize(
    ("pin", "param", "message"),
    [
        ({"algorithm": ("dpo",)}, "search.pin.algorithm", "dpo does not go with pairs data.*sft learns"),
        ({"algorithm": ("sft", "dpo")}, "search.pin.algorithm", "dpo does not go with pairs data"),
        ({"algorithm": ()}, "search.pin.algorithm", "empty; choose from sft; clm"),
        ({"update": ("lora", "magic")}, "search.pin.update", "magic is not possible; choose from full; lora; rslora"),
        (
            {"update": ("bitfit", "lora")},
            "search.pin.update",
            "biases.*tiny .*smol .*from full",
        ),
        (
            {"update": ("prefix",), "layers": (4,)},
            "search.pin.update",
            "prefix cannot be merged.*layers",
        ),
        (
            {"placement": ("embeddings",)},
            "search.pin.placement",
            "embeddings is not possible; choose from all, attention, mlp in tiny",
        ),
        ({"model": ("gpt-5",)}, "search.pin.model", "'gpt-5'.*tiny, smol"),
        ({"layers": (31,)}, "search.pin.layers", "31 is not possible; choose from 6, 5, 4, 3, 2, 1 of tiny"),
        ({"layers": (0,)}, "search.pin.layers", "0 is not possible"),
        ({"kv_heads": (5,)}, "search.pin.kv_heads", "5 is not possible; choose from 4, 2, 1 of tiny; 3, 1 of smol"),
        ({"layers": (20,), "kv_heads": (4,)}, "search.pin", r"layers \(20\) and the pinned kv_heads \(4\)"),
        ({"window": (512,)}, "search.pin.window", r"512 is not possible; choose from 0 \(the model's own\); 1 to 511"),
        ({"window": (-1,)}, "search.pin.window", "-1 is not possible"),
        ({"rope_factor": (0.5,)}, "search.pin.rope_factor", r"0.5 is not possible; choose from 1 .* to 64"),
        ({"rope_factor": (65,)}, "search.pin.rope_factor", "65.0 is not possible"),
        ({"batch_size": (8, 301)}, "search.pin.batch_size", "301 is not possible; choose from 1 to the 300 training"),
        ({"rank": (0,)}, "search.pin.rank", "0 is not possible; choose from 1 to 1024"),
        ({"schedule": ()}, "search.pin.schedule", "choose from cosine; constant"),
        ({"epochs": (0.0,)}, "search.pin.epochs", "0.0 is not possible; choose from numbers above 0"),
        ({"learning_rate_multiplier": (-1.0,)}, "search.pin.learning_rate_multiplier", "-1.0 is not possible"),
        ({"beta": (0.1,)}, "search.pin.beta", " dpo.* only sft, clm"),
        ({"simpo_gamma": (0.1,)}, "search.pin.simpo_gamma", " simpo.* only sft, clm"),
    ],
)
def test_a_pin_that_can_never_be_met_is_refused(pin: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(IllegalDesign, match=message) as refused:
        space_of(pin=Pin(**pin), models=(TINY, SMOL))
    assert refused.value.param == param


def test_models_above_the_parameter_limit_are_left_out() -> None:
    space = space_of(models=(SMOL, TINY), parameters=2_000_000)
    assert [model.name for model in space.models] == ["tiny"]


def test_a_limit_below_every_model_is_refused_with_their_sizes() -> None:
    with pytest.raises(UserError, match=r"1,000 .*tiny has 1,900,000, smol has 134,500,000"):
        space_of(models=(TINY, SMOL), parameters=1000)


def test_encoders_are_left_out_and_refused_where_there_is_nothing_else() -> None:
    encoder = entry("mini", family="encoder")
    assert [model.name for model in space_of(models=(encoder, TINY)).models] == ["tiny"]
    with pytest.raises(IllegalDesign, match=r"a decoder.*mini, an encoder"):
        space_of(models=(encoder,))


def test_a_space_needs_a_model_and_a_row() -> None:
    with pytest.raises(UserError, match="No base model") as modelless:
        space_of(models=())
    assert modelless.value.param == "model"
    with pytest.raises(UserError, match="no training rows") as rowless:
        space_of(rows=0)
    assert rowless.value.param == "training_file"
