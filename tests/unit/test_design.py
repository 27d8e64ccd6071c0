"""Designs are values: one canonical text, one digest, and nothing that is not part of the language gets in."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from luthier.algorithms import Clm, Dpo, Ipo, Orpo, Sft, Simpo
from luthier.design import Architecture, Design, Optimiser, Stage, distinct
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
    Placement,
    Prefix,
    Prompt,
    RsLora,
    TopLayers,
    Update,
    Vera,
)

DESIGN = Design(
    architecture=Architecture(base="tiny-chat", kv_heads=1),
    stages=(
        Stage(algorithm=Sft(), update=Lora(rank=8), optimiser=Optimiser(learning_rate=2e-4)),
        Stage(algorithm=Dpo(beta=0.3), update=Full(), optimiser=Optimiser(learning_rate=1e-5, epochs=0.5)),
    ),
)
CANONICAL = (
    '{"architecture":{"base":"tiny-chat","kv_heads":1,"layers":null},"stages":['
    '{"algorithm":{"kind":"sft"},"optimiser":{"batch_size":8,"epochs":1.0,"learning_rate":0.0002,"warmup":0.05,'
    '"weight_decay":0.0},"update":{"alpha":32,"kind":"lora","rank":8}},'
    '{"algorithm":{"beta":0.3,"kind":"dpo"},"optimiser":{"batch_size":8,"epochs":0.5,"learning_rate":1e-05,'
    '"warmup":0.05,"weight_decay":0.0},"update":{"kind":"full"}}]}'
)

positive = st.floats(min_value=1e-12, max_value=1e6)
counts = st.integers(min_value=1, max_value=10**6)
places = st.sampled_from(get_args(Placement))
updates = (
    st.just(Full())
    | st.builds(TopLayers, layers=counts)
    | st.one_of(*(st.builds(kind, rank=counts, alpha=counts, placement=places) for kind in (Lora, RsLora, Dora)))
    | st.builds(LoraPlus, rank=counts, alpha=counts, ratio=st.floats(min_value=1, max_value=1e6))
    | st.one_of(*(st.builds(kind, rank=counts) for kind in (Pissa, Vera)))
    | st.sampled_from([LayerNorm(), BitFit(), Ia3()])
    | st.builds(Oft, block=counts.filter(lambda count: count > 1))
    | st.builds(AdaLora, rank=counts, alpha=counts, orthogonality=st.floats(min_value=0, max_value=10))
    | st.one_of(*(st.builds(kind, tokens=counts) for kind in (Prompt, Prefix)))
)
stages = st.builds(
    Stage,
    algorithm=st.sampled_from([Clm(), Sft()])
    | st.builds(Dpo, beta=positive)
    | st.builds(Ipo, beta=positive)
    | st.builds(Simpo, beta=positive, gamma=positive)
    | st.builds(Orpo, beta=positive),
    update=updates,
    optimiser=st.builds(
        Optimiser,
        learning_rate=positive,
        batch_size=counts,
        epochs=positive,
        warmup=st.floats(min_value=0, max_value=0.999),
        weight_decay=st.floats(min_value=0, max_value=1),
    ),
)
designs = st.builds(
    Design,
    architecture=st.builds(
        Architecture, base=st.text(min_size=1), layers=st.none() | counts, kv_heads=st.none() | counts
    ),
    stages=st.lists(stages, max_size=3).map(tuple),
)


def with_change(path: str, value: Any) -> dict[str, Any]:
    """DESIGN as JSON with the value at a dotted path replaced or added."""
    data = json.loads(CANONICAL)
    *way, last = path.split(".")
    place = data
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = value
    return data


def test_a_field_that_came_later_is_spelled_out_where_it_says_something() -> None:
    edited = DESIGN.model_copy(
        update={"architecture": Architecture(base="tiny-chat", layers=4, depth_rule="block_influence")}
    )
    assert '{"base":"tiny-chat","depth_rule":"block_influence","kv_heads":null,"layers":4}' in edited.canonical()
    assert Design.model_validate_json(edited.canonical()) == edited
    assert edited.summary().startswith("tiny-chat (4 layers by influence) → ")


def test_a_longer_context_says_by_how_much_and_how() -> None:
    longer = DESIGN.model_copy(update={"architecture": Architecture(base="tiny-chat", rope_factor=4)})
    assert '{"base":"tiny-chat","kv_heads":null,"layers":null,"rope_factor":4.0}' in longer.canonical()
    assert longer.summary().startswith("tiny-chat (context ×4 yarn) → ")
    assert Architecture(base="tiny-chat", rope_factor=4).edited
    with pytest.raises(ValidationError, match="greater than 1"):
        Architecture(base="tiny-chat", rope_factor=1)


def test_where_adapters_sit_is_spelled_out_where_it_is_not_everywhere() -> None:
    update = Lora(rank=8, placement="attention")
    design = DESIGN.model_copy(update={"stages": (DESIGN.stages[0].model_copy(update={"update": update}),)})
    assert '"update":{"alpha":32,"kind":"lora","placement":"attention","rank":8}' in design.canonical()
    assert Design.model_validate_json(design.canonical()) == design
    assert "sft lora r8 on attention lr" in design.summary()
    with pytest.raises(ValidationError, match="'all', 'attention' or 'mlp'"):
        Pissa.model_validate({"rank": 4, "placement": "embeddings"})


def test_the_canonical_text_and_the_digest_never_change() -> None:
    """Every store in use is keyed by them: where this fails, the change needs a migration, not a new literal."""
    assert DESIGN.canonical() == CANONICAL
    assert DESIGN.digest() == "8489d745c7d56cd6"


@given(designs)
def test_a_design_comes_back_from_its_text_as_the_same_value(design: Design) -> None:
    back = Design.model_validate_json(design.canonical())
    assert back == design
    assert back.canonical() == design.canonical()
    assert back.digest() == design.digest()


@given(designs, designs)
def test_designs_are_the_same_exactly_when_their_texts_are(one: Design, other: Design) -> None:
    assert (one == other) is (one.canonical() == other.canonical())
    assert (one == other) is (one.digest() == other.digest())


def test_how_a_design_was_written_does_not_matter() -> None:
    loose = """{"stages": [
        {"optimiser": {"learning_rate": 0.00020}, "update": {"rank": 8, "kind": "lora"}, "algorithm": {"kind": "sft"}},
        {"algorithm": {"kind": "dpo", "beta": 3e-1}, "update": {"kind": "full"},
         "optimiser": {"epochs": 0.5, "learning_rate": 1E-5, "warmup": 0.05, "batch_size": 8, "weight_decay": 0}}
    ], "architecture": {"kv_heads": 1, "base": "tiny-chat"}}"""
    assert Design.model_validate_json(loose).digest() == DESIGN.digest()


def test_every_part_of_a_design_counts() -> None:
    changes = {
        "architecture.base": "other",
        "architecture.layers": 2,
        "architecture.kv_heads": 2,
        "stages": [],
        "stages.0.algorithm": {"kind": "clm"},
        "stages.1.algorithm.beta": 0.1,
        "stages.0.update.rank": 4,
        "stages.0.update.alpha": 16,
        "stages.0.update.kind": "dora",
        "stages.0.optimiser.learning_rate": 1e-4,
        "stages.0.optimiser.batch_size": 4,
        "stages.0.optimiser.epochs": 2,
        "stages.0.optimiser.warmup": 0,
        "stages.0.optimiser.weight_decay": 0.1,
    }
    digests = {Design.model_validate(with_change(path, value)).digest() for path, value in changes.items()}
    assert len(digests | {DESIGN.digest()}) == len(changes) + 1


@pytest.mark.parametrize(
    "path",
    [
        "seed",
        "architecture.context",
        "stages.0.name",
        "stages.0.algorithm.beta",
        "stages.0.update.layers",
        "stages.1.update.rank",
        "stages.0.optimiser.kind",
    ],
)
def test_an_unknown_field_is_refused_at_every_depth(path: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted") as caught:
        Design.model_validate(with_change(path, 1))
    assert path.rpartition(".")[2] in str(caught.value)


@pytest.mark.parametrize("path", ["stages.0.algorithm.kind", "stages.0.update.kind"])
@pytest.mark.parametrize("kind", ["ppo", "SFT", "", None])
def test_an_unknown_member_of_an_axis_is_refused_and_the_known_ones_are_named(path: str, kind: str | None) -> None:
    known = (
        "'clm', 'sft', 'gkd', 'dpo', 'ipo', 'simpo', 'orpo'"
        if "algorithm" in path
        else "'full', 'top_layers', 'lora', 'rslora', 'dora'"
    )
    with pytest.raises(ValidationError, match=known):
        Design.model_validate(with_change(path, kind))


@pytest.mark.parametrize(
    "path",
    [f"stages.0.optimiser.{name}" for name in ("learning_rate", "epochs", "warmup", "weight_decay")]
    + ["stages.1.algorithm.beta"],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused(path: str, value: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Design.model_validate(with_change(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("architecture.base", ""),
        ("architecture.layers", 0),
        ("architecture.kv_heads", 0),
        ("stages.0.update.rank", 0),
        ("stages.0.update.alpha", 0),
        ("stages.0.update", {"kind": "top_layers", "layers": 0}),
        ("stages.0.update", {"kind": "lora_plus", "rank": 4, "ratio": 0.5}),
        ("stages.0.update", {"kind": "oft", "block": 1}),
        ("stages.1.algorithm.beta", 0),
        ("stages.0.optimiser.learning_rate", 0),
        ("stages.0.optimiser.batch_size", 0),
        ("stages.0.optimiser.epochs", 0),
        ("stages.0.optimiser.warmup", 1),
        ("stages.0.optimiser.warmup", -0.1),
        ("stages.0.optimiser.weight_decay", -0.1),
    ],
)
def test_a_value_outside_its_range_is_refused(path: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Design.model_validate(with_change(path, value))


def test_a_program_has_three_stages_at_most() -> None:
    three = DESIGN.model_copy(update={"stages": DESIGN.stages + DESIGN.stages[:1]})
    assert Design.model_validate_json(three.canonical()) == three
    four = three.model_copy(update={"stages": DESIGN.stages * 2})
    with pytest.raises(ValidationError, match="at most 3"):
        Design.model_validate_json(four.canonical())


def test_a_design_cannot_be_changed_and_can_be_a_key() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        DESIGN.architecture.base = "other"  # type: ignore[misc] - the mistake under test
    assert {DESIGN: 1}[Design.model_validate_json(CANONICAL)] == 1


def test_each_union_gives_back_the_class_that_was_meant() -> None:
    adapters = (Lora(rank=4), RsLora(rank=4), Dora(rank=4), Pissa(rank=4), LoraPlus(rank=4), Vera(rank=4), Oft(block=4))
    for update in (Full(), TopLayers(layers=2), LayerNorm(), BitFit(), Ia3(), *adapters):
        assert Design.model_validate(with_change("stages.0.update", update.model_dump())).stages[0].update == update
    for algorithm in (Clm(), Sft(), Dpo(beta=0.2), Ipo(beta=0.2), Simpo(gamma=0.3), Orpo(beta=0.2)):
        found = Design.model_validate(with_change("stages.0.algorithm", algorithm.model_dump())).stages[0].algorithm
        assert found == algorithm


def shown(update: Update) -> str:
    stage = Stage(algorithm=Sft(), update=update, optimiser=Optimiser(learning_rate=1e-3))
    return DESIGN.model_copy(update={"stages": (stage,)}).summary().partition(" → ")[2].partition(" lr ")[0]


def test_a_design_is_shown_in_one_line() -> None:
    untuned = Design(architecture=Architecture(base="tiny-chat"))
    edited = Design(architecture=Architecture(base="tiny-chat", layers=2, kv_heads=1))
    assert (DESIGN.recipe, untuned.recipe) == ("sft+dpo", "base")
    assert untuned.summary() == "tiny-chat, untuned"
    assert edited.summary() == "tiny-chat (2 layers, 1 KV heads), untuned"
    assert DESIGN.summary() == ("tiny-chat (1 KV heads) → sft lora r8 lr 0.0002 ×1ep b8 → dpo full lr 1e-05 ×0.5ep b8")
    assert [shown(update) for update in (BitFit(), Pissa(rank=8), LoraPlus(rank=4), Oft(block=16))] == [
        "sft bitfit",
        "sft pissa r8",
        "sft lora_plus r4",
        "sft oft 16×16",
    ]
    assert (untuned.architecture.edited, edited.architecture.edited) == (False, True)


def test_the_epochs_of_a_constant_rate_are_a_limit_and_the_field_is_new() -> None:
    stage = DESIGN.stages[0]
    constant = stage.model_copy(update={"optimiser": stage.optimiser.model_copy(update={"schedule": "constant"})})
    limited = DESIGN.model_copy(update={"stages": (constant,)})
    assert limited.summary().endswith("lr 0.0002 ≤1ep b8")
    assert '"schedule":"constant"' in limited.canonical()
    assert "schedule" not in DESIGN.canonical(), "designs of before keep their digests"
    assert limited.digest() != DESIGN.model_copy(update={"stages": (stage,)}).digest()


def test_designs_with_the_same_summary_are_told_apart_by_the_settings_that_differ() -> None:
    def tuned(beta: float, batch: int = 8) -> Design:
        optimiser = Optimiser(learning_rate=1e-3, batch_size=batch)
        stage = Stage(algorithm=Dpo(beta=beta), update=Lora(rank=4), optimiser=optimiser)
        return Design(architecture=Architecture(base="tiny"), stages=(stage,))

    first, second, other = tuned(0.1), tuned(0.05), tuned(0.1, batch=4)
    assert first.summary() == second.summary()
    words = distinct([first, second, other, first])
    assert words == [f"{first.summary()} (beta 0.1)", f"{second.summary()} (beta 0.05)", other.summary(), words[0]]
