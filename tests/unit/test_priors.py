"""The learning-rate rule, the two baselines, and the designs that are tried before anything is known."""

from typing import get_args

import pytest

from luthier.algorithms import Dpo
from luthier.design import Architecture, Design
from luthier.errors import IllegalDesign
from luthier.task import DataKind, Pin
from luthier.updates import Lora
from search.policy.priors import PRIORS, baselines, priors
from search.policy.sampler import PRIORS_FIRST
from search.space.axes import Interval
from search.space.learning_rate import default_learning_rate, significant
from tests.unit.search_samples import SMOL, TINY, space_of

TASKS = [*((kind, False) for kind in DataKind), (DataKind.PAIRS, True), (DataKind.CHAT, True)]


def kinds(union: object) -> set[str]:
    return {member.model_fields["kind"].default for member in get_args(get_args(union)[0])}


@pytest.mark.parametrize(
    ("algorithm", "update", "hidden", "rate"),
    [
        ("sft", "full", 2000, 1e-4),
        ("clm", "lora", 2000, 5e-4),
        ("sft", "rslora", 2000, 5e-4),
        ("sft", "dora", 2000, 5e-4),
        ("sft", "top_layers", 2000, 2e-4),
        ("sft", "layernorm", 2000, 1.25e-2),
        ("sft", "pissa", 2000, 2.5e-4),
        ("sft", "lora_plus", 2000, 1.25e-4),
        ("sft", "ia3", 2000, 2.5e-2),
        ("dpo", "full", 2000, 1e-5),
        ("dpo", "lora", 2000, 5e-5),
        ("ipo", "full", 2000, 1e-5),
        ("simpo", "full", 2000, 1e-5),
        ("orpo", "full", 2000, 3e-5),
        ("grpo", "full", 2000, 1e-5),
        ("rloo", "full", 2000, 1e-5),
        ("raft", "full", 2000, 5e-5),
        ("kto", "full", 2000, 1e-5),
        ("sft", "full", 4000, 1e-4 / 2**0.781),
        ("sft", "full", 1000, 1e-4 * 2**0.781),
    ],
)
def test_default_learning_rates_follow_the_rule(algorithm: str, update: str, hidden: int, rate: float) -> None:
    assert default_learning_rate(algorithm, update, hidden) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(("value", "rounded"), [(0.0043244, 0.00432), (1234.6, 1230.0), (5e-5, 5e-5), (9.999, 10.0)])
def test_rates_are_rounded_to_three_digits(value: float, rounded: float) -> None:
    assert significant(value) == rounded


@pytest.mark.parametrize(
    ("kind", "recipe"),
    [
        (DataKind.TEXT, "clm"),
        (DataKind.PAIRS, "sft"),
        (DataKind.CHAT, "sft"),
        (DataKind.PREFERENCE, "dpo"),
        (DataKind.PROMPTS, "grpo"),
        (DataKind.UNPAIRED, "kto"),
    ],
)
def test_the_baselines_are_the_untuned_model_and_plain_lora(kind: DataKind, recipe: str) -> None:
    untuned, plain = baselines(space_of(kind, models=(SMOL, TINY)))
    assert untuned == Design(architecture=Architecture(base="smol"))
    assert plain.architecture == untuned.architecture
    (stage,) = plain.stages
    assert plain.recipe == recipe
    assert stage.update == Lora(rank=16, alpha=32)
    assert stage.optimiser.learning_rate == significant(default_learning_rate(recipe, "lora", 576))
    assert (stage.optimiser.batch_size, stage.optimiser.schedule) == (8, "constant")
    assert (stage.optimiser.epochs,) == space_of(kind).epochs, "the limit"
    _, fixed = baselines(space_of(kind, models=(SMOL, TINY), schedule="cosine"))
    same = stage.optimiser.model_copy(update={"epochs": 1.0, "schedule": "cosine"})
    assert fixed.stages[0] == stage.model_copy(update={"optimiser": same})


def test_the_default_uses_dpo_s_own_beta() -> None:
    _, plain = baselines(space_of(DataKind.PREFERENCE, Pin(beta=(0.4,))))
    assert plain.stages[0].algorithm == Dpo()


def test_the_baselines_are_the_same_whatever_method_is_pinned() -> None:
    pin = Pin(algorithm=("clm",), update=("full",), layers=(4,), kv_heads=(1,), learning_rate_multiplier=(3.0,))
    assert baselines(space_of(pin=pin)) == baselines(space_of())


def test_the_baselines_keep_to_the_pinned_model_epochs_and_batch_size() -> None:
    pin = Pin(model=("smol",), epochs=(2, 5), batch_size=(12, 64))
    untuned, plain = baselines(space_of(pin=pin, models=(TINY, SMOL)))
    assert untuned.architecture.base == plain.architecture.base == "smol"
    optimiser = plain.stages[0].optimiser
    assert (optimiser.epochs, optimiser.batch_size) == (2.0, 12)


@pytest.mark.parametrize(
    ("pin", "rate"),
    [
        (Pin(learning_rate=(3e-4,)), 3e-4),
        (Pin(learning_rate=(1e-5, 2e-3), update=("lora",)), 2e-3),
        (Pin(learning_rate=(7e-4,), update=("rslora", "full")), 7e-4),
        (Pin(learning_rate=(1e-5,), update=("full",)), None),
        (Pin(learning_rate_multiplier=(0.5,)), 0.5),
    ],
)
def test_the_default_keeps_to_a_pinned_learning_rate_that_is_meant_for_updates_like_it(
    pin: Pin, rate: float | None
) -> None:
    """None: its own rate. The last one is a multiplier of it."""
    space = space_of(pin=pin)
    own = default_learning_rate("sft", "lora", space.models[0].hidden_size)
    wanted = {None: own, 0.5: 0.5 * own}.get(rate, rate)
    assert wanted is not None
    assert baselines(space)[1].stages[0].optimiser.learning_rate == pytest.approx(wanted, rel=1e-2)


def test_the_default_fits_a_handful_of_rows() -> None:
    assert baselines(space_of(rows=5))[1].stages[0].optimiser.batch_size == 4


@pytest.mark.parametrize("models", [(TINY,), (TINY, SMOL)], ids=["one model", "two models"])
@pytest.mark.parametrize(("kind", "rewarded"), TASKS)
def test_there_are_eight_to_twelve_priors_all_different_and_in_the_space(
    kind: DataKind, rewarded: bool, models: tuple
) -> None:
    space = space_of(kind, models=models, rewarded=rewarded)
    designs = priors(space)
    digests = {design.digest() for design in [*baselines(space), *designs]}
    assert 8 <= len(designs) <= 12
    assert len(digests) == len(designs) + 2
    for design in designs:
        assert space.decode(space.encode(design)) == design


@pytest.mark.parametrize(("kind", "rewarded"), TASKS)
def test_full_fine_tuning_and_lora_at_several_rates_are_among_the_first_designs(kind: DataKind, rewarded: bool) -> None:
    space = space_of(kind, rewarded=rewarded)
    first = [baselines(space)[1], *priors(space)[:PRIORS_FIRST]]
    assert len({design.recipe for design in first}) >= min(2, len(space.recipes))
    fixed = priors(space_of(kind, rewarded=rewarded, schedule="cosine"))[:PRIORS_FIRST]
    assert len({design.stages[0].optimiser.epochs for design in fixed}) >= 2, "where the length is an axis"
    for update in ("full", "lora"):
        stages = [design.stages[0] for design in priors(space)[: PRIORS_FIRST + 1] + first[:1]]
        rates = {
            round(stage.optimiser.learning_rate / default_learning_rate(stage.algorithm.kind, update, 128))
            for stage in stages
            if stage.update.kind == update
        }
        assert len(rates) >= 2, update
        assert max(rates) >= 2


@pytest.mark.parametrize(("kind", "rewarded"), TASKS)
def test_all_priors_together_use_every_algorithm_and_edit_and_the_usual_updates(kind: DataKind, rewarded: bool) -> None:
    space = space_of(kind, rewarded=rewarded)
    designs = priors(space)
    algorithms = {stage.algorithm.kind for design in designs for stage in design.stages}
    assert algorithms == {algorithm for recipe in space.recipes for algorithm in recipe.split("+")}
    updates = {stage.update.kind for design in designs for stage in design.stages}
    assert updates == {"full", "top_layers", "lora", "rslora", "dora", "pissa", "lora_plus"}
    assert any(design.architecture.layers for design in designs)
    assert any(design.architecture.kv_heads for design in designs)


def test_the_stages_of_a_prior_go_on_with_one_update() -> None:
    for design in priors(space_of(DataKind.PREFERENCE)):
        assert len({stage.update for stage in design.stages}) == 1


def test_priors_take_turns_on_the_models() -> None:
    bases = [design.architecture.base for design in priors(space_of(models=(TINY, SMOL)))]
    assert bases[:4] == ["smol", "tiny", "smol", "tiny"]


@pytest.mark.parametrize(
    "pin",
    [
        Pin(update=("lora",)),
        Pin(update=("full",)),
        Pin(algorithm=("clm",), update=("dora", "top_layers")),
        Pin(layers=(4,), kv_heads=(2,)),
        Pin(epochs=(5.0,), batch_size=(2,)),
        Pin(learning_rate_multiplier=(0.7, 9.0)),
    ],
    ids=lambda pin: str(pin.model_dump(exclude_none=True)),
)
def test_priors_keep_to_the_pins_and_do_not_repeat(pin: Pin) -> None:
    space = space_of(pin=pin)
    designs = priors(space)
    assert len(designs) >= 4
    assert len({design.digest() for design in [*baselines(space), *designs]}) == len(designs) + 2
    for design in designs:
        assert space.decode(space.encode(design)) == design


@pytest.mark.parametrize("kind", [DataKind.PAIRS, DataKind.CHAT, DataKind.PREFERENCE])
def test_a_longer_context_is_tried_early_where_it_is_offered(kind: DataKind) -> None:
    space = space_of(kind, length=1024)
    assert [design.architecture.rope_factor for design in priors(space)[:3]] == [None, 4, None]
    assert {design.architecture.rope_factor for design in priors(space_of(kind))} == {None}
    assert baselines(space) == baselines(space_of(kind))


def test_a_fully_pinned_space_has_its_one_design_as_prior() -> None:
    pin = Pin(
        algorithm=("sft",),
        update=("full",),
        layers=(6,),
        kv_heads=(4,),
        epochs=(1.0,),
        batch_size=(8,),
        learning_rate_multiplier=(2.0,),
    )
    (design,) = priors(space_of(pin=pin))
    assert design.stages[0].update.kind == "full"


def test_a_prior_outside_of_a_continuous_axis_is_refused() -> None:
    narrow = space_of().model_copy(update={"multipliers": Interval(low=0.9, high=1.1)})
    with pytest.raises(IllegalDesign, match="learning_rate_multiplier 2"):
        priors(narrow)


def test_every_kind_of_data_has_recipes_for_legal_programs_only() -> None:
    for kind in DataKind:
        assert {prior.recipe for prior in PRIORS[kind]} <= set(space_of(kind).recipes)
