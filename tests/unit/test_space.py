"""The space of designs: what it holds, and that encoding is the exact inverse of sampling."""

import itertools
import random
from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.algorithms import Algorithm, Dpo, Sft
from luthier.design import Design
from luthier.errors import IllegalDesign
from luthier.task import DataKind, Pin
from luthier.updates import (
    AdaLora,
    BitFit,
    Dora,
    Full,
    Ia3,
    LayerNorm,
    Lora,
    LoraPlus,
    Oft,
    Pissa,
    Placed,
    Prefix,
    Prompt,
    RandLora,
    RsLora,
    TopLayers,
    Vera,
)
from search.methods import SETTINGS, UPDATE_OF, Interval
from search.methods.updates import OFT_BLOCKS, PISSA_MOST, RANDLORA_RANKS, VERA_RANKS, VIRTUAL_TOKENS
from search.policy.priors import baselines
from search.space.axes import LIMITS, RANKS, SEEN, with_devices
from search.space.learning_rate import default_learning_rate
from search.space.samplers import STEPS, Enumeration, V, Value
from search.space.validate import check, recipes
from tests.unit.search_samples import SMOL, TINY, entry, later_updates_of, samples, space_of

ENTRIES = {model.name: model for model in (TINY, SMOL, entry("flat", layers=1, kv_heads=1, hidden=64, biases=True))}
SPACES = {
    **{f"{kind}": space_of(kind, models=tuple(ENTRIES.values())) for kind in DataKind},
    "pinned": space_of(
        DataKind.PREFERENCE,
        Pin(
            layers=(1, 5),
            learning_rate_multiplier=(0.1, 1.0, 7.77),
            beta=(0.12345, 0.9),
            simpo_gamma=(0.54321,),
            epochs=(0.5,),
        ),
        rows=3,
        models=tuple(ENTRIES.values()),
    ),
    "rewarded pairs": space_of(rewarded=True, models=tuple(ENTRIES.values())),
    "long rows": space_of(length=3000, models=tuple(ENTRIES.values())),
    "pinned context": space_of(pin=Pin(rope_factor=(1, 1.5, 8)), models=tuple(ENTRIES.values())),
}


class Drawn:
    """Answers drawn by hypothesis, which likes the ends of an interval; remembers them."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self.answers: dict[str, Value] = {}

    def categorical(self, name: str, choices: Sequence[V]) -> V:
        answer = self._data.draw(st.sampled_from(choices), label=name)
        self.answers[name] = answer
        return answer

    def log_uniform(self, name: str, low: float, high: float) -> float:
        answer = self._data.draw(st.floats(low, high), label=name)
        self.answers[name] = answer
        return answer


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=150)
@given(data=st.data())
def test_encoding_is_the_inverse_of_sampling(name: str, data: st.DataObject) -> None:
    space, drawn = SPACES[name], Drawn(data)
    design = space.sample(drawn)
    encoded = space.encode(design)
    assert space.decode(encoded) == design
    assert space.decode(encoded).digest() == design.digest()
    assert encoded.keys() == drawn.answers.keys() == space.distributions(design).keys()
    for axis, answer in drawn.answers.items():
        # learning rates and beta are rounded to three digits, and then the multiplier; all else is exact
        assert encoded[axis] == (pytest.approx(answer, rel=0.01) if isinstance(answer, float) else answer)


@pytest.mark.parametrize("name", SPACES)
def test_distributions_contain_what_encode_says(name: str) -> None:
    space = SPACES[name]
    for design in samples(space, 50):
        distributions = space.distributions(design)
        for axis, value in space.encode(design).items():
            distribution = distributions[axis]
            assert distribution.to_external_repr(distribution.to_internal_repr(value)) == value


@pytest.mark.parametrize("kind", DataKind)
def test_every_sample_is_legal(kind: DataKind) -> None:
    for design in samples(SPACES[kind]):
        check(design, kind, ENTRIES[design.architecture.base], rewarded=kind is DataKind.PROMPTS)


def test_four_bit_bases_are_searched_only_where_the_workers_can_hold_them() -> None:
    assert "qlora" not in space_of().models[0].updates
    able = with_devices(Pin(), [TINY], four_bit=True)
    assert space_of(pin=able).models[0].updates == (*space_of().models[0].updates, "qlora")
    assert with_devices(Pin(), [TINY], four_bit=False) == Pin()
    assert with_devices(Pin(update=("lora",)), [TINY], four_bit=True) == Pin(update=("lora",))
    with pytest.raises(IllegalDesign, match=r"qlora.*CUDA.*bitsandbytes") as refused:
        with_devices(Pin(update=("lora", "qlora")), [TINY], four_bit=False)
    assert refused.value.param == "search.pin.update"


def test_samples_reach_every_branch() -> None:
    designs = samples(space_of(DataKind.PREFERENCE, models=(TINY,)), 4000)
    updates = {design.stages[0].update for design in designs}
    family = (Lora, RsLora, Dora, LoraPlus)
    places = ("all", "attention", "mlp")  # the embeddings of this model are its output head
    adapters = {kind(rank=rank, placement=place) for kind in family for rank in RANKS for place in places}
    adapters |= {Pissa(rank=rank, placement=place) for rank in RANKS if rank <= PISSA_MOST for place in places}
    adapters |= (
        {Vera(rank=rank) for rank in VERA_RANKS}
        | {RandLora(rank=rank) for rank in RANDLORA_RANKS}
        | {AdaLora(rank=rank) for rank in RANKS}
    )
    adapters |= {Oft(block=block) for block in OFT_BLOCKS} | {Ia3()}
    adapters |= {kind(tokens=tokens) for kind in (Prompt, Prefix) for tokens in VIRTUAL_TOKENS}
    assert updates == {Full(), TopLayers(layers=1), TopLayers(layers=2), LayerNorm(), *adapters}
    assert {design.recipe for design in designs} == set(recipes(DataKind.PREFERENCE))
    edits = {(design.architecture.layers, design.architecture.kv_heads) for design in designs}
    assert edits == set(itertools.product([None, 5, 4], [None, 2, 1]))
    rules = {(bool(design.architecture.layers), design.architecture.depth_rule) for design in designs}
    assert rules == {(False, "late"), (True, "late"), (True, "block_influence")}
    assert {design.stages[0].optimiser.batch_size for design in designs} == {4, 8, 16, 32}
    fixed = samples(space_of(schedule="cosine"), 50)
    assert {design.stages[0].optimiser.epochs for design in fixed} == {1.0, 2.0, 3.0}


def test_the_schedule_is_an_axis_where_several_are_pinned() -> None:
    plain, cosine = space_of(), space_of(schedule="cosine")
    both = space_of(pin=Pin(schedule=("constant", "cosine")))
    assert space_of(schedule="constant") == plain, "the default"
    assert {stage.optimiser.schedule for design in samples(plain, 20) for stage in design.stages} == {"constant"}
    assert {stage.optimiser.schedule for design in samples(cosine, 20) for stage in design.stages} == {"cosine"}
    assert {design.stages[0].optimiser.schedule for design in samples(both, 20)} == {"constant", "cosine"}
    for design in samples(both, 20):
        answers = both.encode(design)
        assert answers["schedule"] == design.stages[0].optimiser.schedule
        assert both.decode(answers) == design
    assert "schedule" not in plain.encode(samples(plain, 1)[0])
    with pytest.raises(IllegalDesign):
        plain.encode(samples(cosine, 1)[0])
    for space, schedule in ((plain, "constant"), (cosine, "cosine")):
        _, baseline = baselines(space)
        assert baseline.stages[0].optimiser.schedule == schedule


@pytest.mark.parametrize(
    ("rows", "limit"), [(1, LIMITS[1]), (SEEN // LIMITS[1], LIMITS[1]), (SEEN // 7, 7), (SEEN, LIMITS[0])]
)
def test_trials_at_a_constant_rate_find_their_length_themselves_within_a_limit(rows: int, limit: int) -> None:
    assert space_of(rows=rows).epochs == (float(limit),)
    assert space_of(rows=rows, pin=Pin(epochs=(2.0,))).epochs == (2.0,)
    assert space_of(rows=rows, schedule="cosine").epochs == (1.0, 2.0, 3.0)


def test_edits_follow_each_model() -> None:
    tiny, smol, flat = SPACES["pairs"].models
    assert (tiny.choices["layers"], tiny.choices["kv_heads"], tiny.top_layers) == ((6, 5, 4), (4, 2, 1), (1, 2))
    assert (smol.choices["layers"], smol.choices["kv_heads"], smol.top_layers) == ((30, 26, 22), (3, 1), (1, 2, 4, 8))
    assert (flat.choices["layers"], flat.choices["kv_heads"], flat.top_layers) == ((1,), (1,), (1,))


def test_adapters_sit_on_embeddings_only_where_these_are_not_the_output_head_and_pissa_never() -> None:
    untied = entry("untied", tied=False)
    found = {
        (design.architecture.base, update.kind)
        for design in samples(space_of(models=(TINY, untied)), 2000)
        if isinstance(update := design.stages[0].update, Placed) and update.placement == "embeddings"
    }
    assert found == {("untied", kind) for kind in ("lora", "rslora", "dora", "lora_plus")}


def test_virtual_tokens_are_for_the_model_as_it_is() -> None:
    designs = samples(space_of(), 1000)
    virtual = [design for design in designs if isinstance(design.stages[0].update, Prompt | Prefix)]
    assert virtual
    assert not any(design.architecture.edited for design in virtual)
    only = samples(space_of(pin=Pin(update=("prompt", "prefix"))), 50)
    assert not any(design.architecture.edited for design in only)


def test_biases_are_trained_alone_only_where_there_are_some() -> None:
    biased = entry("biased", biases=True)
    by_model = {name: set[str]() for name in ("tiny", "biased")}
    for design in samples(space_of(models=(TINY, biased))):
        by_model[design.architecture.base].add(design.stages[0].update.kind)
    assert by_model["biased"] - by_model["tiny"] == {"bitfit"}
    only = samples(space_of(pin=Pin(update=("bitfit",)), models=(TINY, biased)), 20)
    assert {(design.architecture.base, design.stages[0].update) for design in only} == {("biased", BitFit())}


def test_learning_rates_are_within_a_fifth_and_twenty_times_of_the_default() -> None:
    for design in samples(SPACES["pairs"]):
        stage, model = design.stages[0], ENTRIES[design.architecture.base]
        default = default_learning_rate(stage.algorithm.kind, stage.update.kind, model.facts.hidden_size)
        assert 0.2 * 0.995 <= stage.optimiser.learning_rate / default <= 20 * 1.005


def test_learning_rates_and_the_algorithms_own_settings_have_three_digits() -> None:
    for design in samples(SPACES["preference"]):
        for stage in design.stages:
            own = stage.algorithm.model_dump(exclude={"kind"})
            for value in (stage.optimiser.learning_rate, *own.values()):
                assert value == float(f"{value:.2e}")


def test_every_setting_of_an_algorithm_has_an_axis_and_a_pin_of_its_own_name() -> None:
    """So that what is learnt about one algorithm's beta says nothing about another's."""
    fields = {
        (member.model_fields["kind"].default, field)
        for member in get_args(get_args(Algorithm)[0])
        for field in member.model_fields
        if field not in ("kind", "teacher")  # of the base models, as test_space_teachers.py has it
    }
    assert sorted((setting.algorithm, setting.field) for setting in SETTINGS.values()) == sorted(fields)
    assert SETTINGS.keys() <= Pin.model_fields.keys()


@pytest.mark.parametrize("name", SETTINGS)
def test_only_the_settings_of_the_program_are_asked_for(name: str) -> None:
    space, setting = SPACES["preference"], SETTINGS[name]
    for design in samples(space):
        asked = space.encode(design)
        assert (name in asked) == (setting.algorithm in design.recipe.split("+"))
        if name in asked:
            match setting.default:
                case Interval(low=low, high=high):
                    assert low * 0.99 <= asked[name] <= high * 1.01
                case values:
                    assert asked[name] in values
            assert asked[name] == getattr(design.stages[-1].algorithm, setting.field)


def test_after_sft_dpo_runs_at_a_tenth_of_the_rate_that_its_update_would_have() -> None:
    both = space_of(DataKind.PREFERENCE, Pin(algorithm=("sft+dpo",)))
    for design in samples(both):
        sft, dpo = design.stages
        assert isinstance(sft.algorithm, Sft)
        assert isinstance(dpo.algorithm, Dpo)
        factor = UPDATE_OF[dpo.update.kind].learning_rate / UPDATE_OF[sft.update.kind].learning_rate
        assert dpo.optimiser.learning_rate == pytest.approx(sft.optimiser.learning_rate / 10 * factor, rel=0.006)
        assert 0.02 <= dpo.algorithm.beta <= 0.5


def test_later_stages_go_on_with_the_update_or_have_lora_or_all_weights_of_their_own() -> None:
    found = later_updates_of(Pin(algorithm=("sft+dpo",)))
    assert found.pop("lora") == {"same", "full"}
    assert found.pop("full") == {"same", "lora"}
    assert [found.pop(kind) for kind in ("prompt", "prefix")] == [{"same"}] * 2  # nothing else could start from them
    others = {
        "rslora",
        "dora",
        "top_layers",
        "layernorm",
        "pissa",
        "lora_plus",
        "vera",
        "randlora",
        "ia3",
        "oft",
        "adalora",
    }
    assert set(found) == others
    assert all(later == {"same", "lora", "full"} for later in found.values())


def test_programs_of_one_stage_are_not_asked_for_a_later_update() -> None:
    for design in samples(SPACES["preference"]):
        asked = any(axis.startswith("later_update") for axis in SPACES["preference"].encode(design))
        merges = design.stages[0].update.kind not in ("prompt", "prefix")
        assert asked == (len(design.stages) > 1 and merges)


def test_updates_are_asked_about_only_where_they_go_with_the_program() -> None:
    rewards = SPACES["preference"].model_copy(update={"recipes": ("sft+dpo", "reward_model+rloo")})
    found: dict[str, set[str]] = {}
    for design in samples(rewards, 1000):
        found.setdefault(design.recipe, set()).add(design.stages[0].update.kind)
    assert found["sft+dpo"] - found["reward_model+rloo"] == {"adalora", "prompt", "prefix"}


@pytest.mark.parametrize(("rows", "sizes"), [(1, (1,)), (3, (3,)), (4, (4,)), (20, (4, 8, 16)), (500, (4, 8, 16, 32))])
def test_a_batch_is_never_larger_than_the_data(rows: int, sizes: tuple[int, ...]) -> None:
    assert space_of(rows=rows).batch_sizes == sizes


def outsiders() -> dict[str, Design]:
    _, plain = baselines(space_of())
    stage = plain.stages[0]
    rate = stage.optimiser.learning_rate
    optimisers = {
        "learning_rate_multiplier is 100": {"learning_rate": rate * 100},
        "batch_size is 64, but this search allows 4, 8, 16, 32": {"batch_size": 64},
        "epochs is 9": {"epochs": 9.0},
        "weight decay must have .*defaults": {"weight_decay": 0.1},
        "learning rates three significant digits": {"learning_rate": rate * 1.0001},
    }
    updates = {"rank is 3": Lora(rank=3), "Alpha": Lora(rank=16, alpha=64)}
    edits = {"base model smol is not in this search": {"base": "smol"}, r"layers\[tiny\] is 2": {"layers": 2}}
    return {
        "untuned": plain.model_copy(update={"stages": ()}),
        "recipe is 'sft[+]sft'": plain.model_copy(update={"stages": (stage, stage)}),
        **{
            message: plain.model_copy(
                update={"stages": (stage.model_copy(update={"optimiser": stage.optimiser.model_copy(update=change)}),)}
            )
            for message, change in optimisers.items()
        },
        **{
            message: plain.model_copy(update={"stages": (stage.model_copy(update={"update": update}),)})
            for message, update in updates.items()
        },
        **{
            message: plain.model_copy(update={"architecture": plain.architecture.model_copy(update=edit)})
            for message, edit in edits.items()
        },
    }


@pytest.mark.parametrize(("message", "design"), outsiders().items(), ids=list(outsiders()))
def test_a_design_outside_the_space_has_no_encoding(message: str, design: Design) -> None:
    with pytest.raises(IllegalDesign, match=message):
        space_of().encode(design)


def test_decoding_names_the_missing_answer() -> None:
    space = space_of()
    answers = space.encode(baselines(space)[1])
    del answers["batch_size"]
    with pytest.raises(IllegalDesign, match="batch_size is None, but this search allows 4, 8, 16, 32"):
        space.decode(answers)


def test_an_enumeration_visits_every_design_once_in_an_order_of_its_own() -> None:
    pin = Pin(layers=(6,), kv_heads=(4, 1), epochs=(1.0,), batch_size=(8,), learning_rate_multiplier=(1.0, 2.0))
    space = space_of(pin=pin)

    def enumerated(seed: int) -> list[Design]:
        answers = Enumeration(random.Random(seed))
        designs = [space.sample(answers)]
        while answers.advance():
            designs.append(space.sample(answers))
        return designs

    first, second = enumerated(0), enumerated(1)
    # full, LoRA's family and PiSSA in three places, top layers, norms, VeRA, RandLoRA, IA³, OFT, AdaLoRA
    updates = 1 + 4 * 5 * 3 + 4 * 3 + 2 + 1 + 4 + 3 + 1 + 3 + 5
    virtual = 2 * 4  # on the model as it is alone
    assert len(first) == len(set(first)) == (2 * updates + virtual) * 2 * 2  # heads, programs, rates
    assert set(first) == set(second)
    assert first != second


def test_an_enumeration_of_a_continuous_axis_stays_inside_and_ends() -> None:
    answers = Enumeration(random.Random(0))
    multipliers = [answers.log_uniform("learning_rate_multiplier", 0.2, 5.0)]
    while answers.advance():
        multipliers.append(answers.log_uniform("learning_rate_multiplier", 0.2, 5.0))
    assert len(set(multipliers)) == STEPS
    assert 0.2 < min(multipliers) < 0.22
    assert 4.5 < max(multipliers) < 5.0
