"""What a search asks about the shape of a model, and what it leaves alone."""

import itertools

import pytest

from luthier.errors import IllegalDesign
from luthier.task import DataKind, Pin
from tests.unit.search_samples import SMOL, TINY, entry, samples, space_of


@pytest.mark.parametrize("kind", DataKind)
def test_at_least_half_of_the_random_draws_leave_the_architecture_as_it_is(kind: DataKind) -> None:
    designs = samples(space_of(kind, models=(TINY, SMOL)), 2000)
    edited = sum(design.architecture.edited for design in designs)
    assert 0.45 < edited / len(designs) < 0.55
    both = sum(design.architecture.layers is not None and bool(design.architecture.kv_heads) for design in designs)
    assert 0 < both < edited / 2


def test_there_is_nothing_to_ask_about_a_shape_that_is_pinned() -> None:
    space = space_of(pin=Pin(layers=(6,), kv_heads=(4,)))
    assert not any("edit" in axis or axis.startswith(("layers", "kv")) for axis in space.encode(samples(space, 1)[0]))


def test_an_edit_that_pins_demand_is_always_made_and_the_others_are_free() -> None:
    designs = samples(space_of(pin=Pin(layers=(4,))), 200)
    assert {design.architecture.layers for design in designs} == {4}
    assert {design.architecture.kv_heads for design in designs} == {None, 2, 1}


@pytest.mark.parametrize(
    ("kind", "length", "windows"),
    [
        (DataKind.PAIRS, 0, (0,)),
        (DataKind.PAIRS, 128, (0,)),
        (DataKind.PAIRS, 129, (0, 128)),
        (DataKind.PAIRS, 3000, (0, 1024, 512)),
        (DataKind.TEXT, 3000, (0, 256, 128)),  # long text is read in pieces of 512
    ],
)
def test_windows_are_offered_where_long_rows_would_feel_them(kind: DataKind, length: int, windows: tuple) -> None:
    (model,) = space_of(kind, length=length, models=(entry(context=4096, attention_window=4096),)).models
    assert model.choices["window"] == windows


def test_windows_are_narrower_than_what_the_model_sees_and_not_for_every_family() -> None:
    (model,) = space_of(length=3000, models=(entry(attention_window=300),)).models
    assert model.choices["window"] == (0, 256, 128)
    (model,) = space_of(length=3000, models=(entry(attention_window=None),)).models
    assert model.choices["window"] == (0,)


def test_a_pinned_window_is_taken_whatever_the_rows() -> None:
    designs = samples(space_of(pin=Pin(window=(64,))), 50)
    assert {design.architecture.window for design in designs} == {64}
    unwindowed = samples(space_of(pin=Pin(window=(0,)), length=3000), 50)
    assert {design.architecture.window for design in unwindowed} == {None}


@pytest.mark.parametrize(
    ("kind", "length", "factors"),
    [
        (DataKind.PAIRS, 512, (1,)),  # what the model reads anyway
        (DataKind.CHAT, 513, (4, 2, 1)),
        (DataKind.PREFERENCE, 1024, (4, 2, 1)),
        (DataKind.PAIRS, 100_000, (4, 2, 1)),
        (DataKind.TEXT, 100_000, (1,)),  # long text is read in pieces
    ],
)
def test_a_longer_context_is_offered_where_long_rows_exceed_the_models_own(
    kind: DataKind, length: int, factors: tuple[float, ...]
) -> None:
    (model,) = space_of(kind, length=length, models=(entry(context=512),)).models
    assert model.choices["rope_factor"] == factors
    assert model.reach == 512 * factors[0]


def test_a_model_whose_positions_are_fixed_holds_the_others_to_what_it_can_read() -> None:
    learned = entry("learned", rope=None, context=2048)
    tiny, fixed = space_of(length=100_000, models=(TINY, learned)).models
    assert (tiny.choices["rope_factor"], fixed.choices["rope_factor"]) == ((4, 2, 1), (1,))
    tiny, _ = space_of(length=100_000, models=(TINY, entry("learned", rope=None, context=512))).models
    assert tiny.choices["rope_factor"] == (1,)


def test_a_stretched_context_is_drawn_with_both_rules_and_with_other_edits() -> None:
    designs = samples(space_of(length=1024, models=(entry(context=512),)), 2000)
    drawn = {(design.architecture.rope_factor, design.architecture.rope_rule) for design in designs}
    assert drawn == {(None, "yarn"), *itertools.product((2, 4), ("yarn", "linear"))}
    assert any(design.architecture.rope_factor and design.architecture.window for design in designs)
    edited = sum(design.architecture.edited for design in designs)
    assert 0.45 < edited / len(designs) < 0.55


def test_a_pinned_context_is_taken_whatever_the_rows_and_only_by_models_that_can_be_stretched() -> None:
    learned = entry("learned", rope=None)
    space = space_of(pin=Pin(rope_factor=(3,)), models=(learned, TINY))
    assert {(d.architecture.base, d.architecture.rope_factor) for d in samples(space, 50)} == {("tiny", 3)}
    both = space_of(pin=Pin(rope_factor=(1, 3)), models=(learned, TINY))
    assert [(model.name, model.choices["rope_factor"]) for model in both.models] == [
        ("learned", (1,)),
        ("tiny", (3, 1)),
    ]
    unstretched = samples(space_of(pin=Pin(rope_factor=(1,)), length=3000), 50)
    assert {design.architecture.rope_factor for design in unstretched} == {None}


def test_a_pin_on_the_context_is_refused_where_no_model_can_be_stretched() -> None:
    models = (entry("learned", rope=None, architecture="GPT2LMHeadModel"), entry("long", rope="scaled"))
    with pytest.raises(
        IllegalDesign,
        match=r"learned \(GPT2LMHeadModel\).*RoPE.*; long .*RoPE.*; choose from 1",
    ) as refused:
        space_of(pin=Pin(rope_factor=(1, 2)), models=models)
    assert refused.value.param == "search.pin.rope_factor"
