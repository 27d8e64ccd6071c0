"""Which designs go with which data and which base model, and how a refusal is explained."""

import itertools
from typing import get_args

import pytest

from luthier.algorithms import Algorithm, Clm, Dpo, Ipo, Kto, Mlm, Orpo, RewardModel, Rloo, Sft, Simpo
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.errors import IllegalDesign
from luthier.task import DataKind, Pin
from luthier.updates import BitFit, Dora, Full, Lora, Prefix, Prompt, TopLayers, Update
from search.methods import ALGORITHMS, EDITS, RECIPES, UPDATES
from search.methods.edits import kv_head_choices
from search.policy.priors import baselines
from search.space.validate import FAMILIES, check, recipes, refusal, update_refusal
from tests.unit.search_samples import SMOL, TINY, entry, space_of

ADAPTER = Lora(rank=8)
RATE = Optimiser(learning_rate=1e-3)


def design(*algorithms: object, update: object = ADAPTER, base: str = "tiny", **edits: object) -> Design:
    stages = tuple(Stage(algorithm=algorithm, update=update, optimiser=RATE) for algorithm in algorithms)
    return Design(architecture=Architecture(base=base, **edits), stages=stages)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (DataKind.TEXT, ("clm",)),
        (DataKind.PAIRS, ("sft", "clm")),
        (DataKind.CHAT, ("sft", "clm")),
        (
            DataKind.PREFERENCE,
            (
                "dpo",
                "sft+dpo",
                "kto",
                "sft+kto",
                "sft",
                "ipo",
                "sft+ipo",
                "simpo",
                "sft+simpo",
                "orpo",
                "reward_model+rloo",
                "reward_model+grpo",
                "sft+reward_model+rloo",
            ),
        ),
        (DataKind.UNPAIRED, ("kto", "sft+kto", "sft")),
    ],
)
def test_each_kind_of_data_has_its_programs_the_usual_one_first(kind: DataKind, expected: tuple[str, ...]) -> None:
    assert recipes(kind) == expected


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (DataKind.TEXT, ()),
        (DataKind.PREFERENCE, ()),
        (DataKind.PAIRS, ("grpo", "rloo", "raft", "sft+grpo", "sft+rloo", "sft+raft")),
        (DataKind.CHAT, ("grpo", "rloo", "raft", "sft+grpo", "sft+rloo", "sft+raft")),
        (DataKind.PROMPTS, ("grpo", "rloo", "raft")),
    ],
)
def test_a_reward_makes_its_maximisers_possible_where_there_is_something_to_answer(
    kind: DataKind, more: tuple[str, ...]
) -> None:
    assert recipes(kind, rewarded=True) == recipes(kind) + more


def test_without_a_reward_its_maximisers_are_refused_for_what_is_missing() -> None:
    reason = refusal("sft+grpo", DataKind.PAIRS)
    assert reason is not None
    assert "grpo needs a reward" in reason
    assert "task.grader" in reason
    assert refusal("sft+grpo", DataKind.PAIRS, rewarded=True) is None
    reason = refusal("sft+grpo", DataKind.PROMPTS, rewarded=True)
    assert reason is not None
    assert "the prompts have no answers to learn; possible for prompts data: grpo " in reason


@pytest.mark.parametrize("rule", ALGORITHMS, ids=lambda rule: rule.kind)
def test_every_rule_speaks_of_every_kind_of_data_once(rule) -> None:
    assert sorted([*rule.fits, *rule.refused]) == sorted(DataKind)


def kinds_of(union: object) -> set[str]:
    """The names of an `Annotated[A | B | …, …]`'s members."""
    return {member.model_fields["kind"].default for member in get_args(get_args(union)[0])}


def test_the_table_has_every_algorithm_once_and_each_has_its_learning_rate() -> None:
    assert sorted(spec.kind for spec in ALGORITHMS) == sorted(kinds_of(Algorithm))


def test_the_table_has_every_update_once_and_each_has_its_learning_rate() -> None:
    assert sorted(spec.kind for spec in UPDATES) == sorted(kinds_of(Update))


def test_the_table_has_every_edit_of_an_architecture_once() -> None:
    assert [rule.edit for rule in EDITS] == ["layers", "kv_heads", "window", "rope_factor"]


def test_every_program_that_is_searched_is_legal_for_some_data() -> None:
    legal = itertools.product(DataKind, FAMILIES)
    assert set(RECIPES) == {
        name for kind, family in legal for name in recipes(kind, family, rewarded=True, taught=True)
    }


def test_a_program_has_three_stages_at_most() -> None:
    reason = refusal("clm+sft+dpo+ipo", DataKind.PAIRS)
    assert reason is not None
    assert reason.startswith("clm+sft+dpo+ipo has 4 stages")
    assert " 3 " in reason


def test_a_refusal_says_why_and_what_goes_instead() -> None:
    reason = refusal("dpo", DataKind.CHAT)
    assert reason is not None
    assert "dpo does not go with chat data: each conversation has one continuation" in reason
    assert "sft learns the assistant's messages; clm learns every message alike" in reason


def test_a_program_that_goes_is_not_refused() -> None:
    assert refusal("sft", DataKind.PREFERENCE) is None


def test_an_unknown_program_is_refused_with_the_known_ones() -> None:
    reason = refusal("magic", DataKind.TEXT)
    assert reason is not None
    assert reason.startswith("there is no algorithm 'magic'; choose from clm, sft, gkd")
    assert reason.endswith("for text data: clm learns every token; mlm learns masked tokens from those around them")


@pytest.mark.parametrize(("heads", "choices"), [(1, (1,)), (3, (3, 1)), (4, (4, 2, 1)), (12, (12, 6, 4, 3, 2, 1))])
def test_heads_can_be_pooled_to_their_divisors(heads: int, choices: tuple[int, ...]) -> None:
    assert kv_head_choices(entry(kv_heads=heads).facts) == choices


@pytest.mark.parametrize("kind", DataKind)
def test_the_untuned_model_is_legal_for_every_kind_of_data(kind: DataKind) -> None:
    check(design(), kind, TINY)


@pytest.mark.parametrize(
    ("kind", "legal"),
    [
        (DataKind.TEXT, design(Clm())),
        (DataKind.PAIRS, design(Sft(), layers=1, kv_heads=1)),
        (DataKind.CHAT, design(Clm(), update=Full())),
        (DataKind.CHAT, design(Sft(), window=511)),
        (DataKind.CHAT, design(Sft(), layers=3, depth_rule="block_influence")),
        (DataKind.CHAT, design(Sft(), rope_factor=2.5, rope_rule="linear", window=64)),
        (DataKind.PREFERENCE, design(Sft(), Dpo())),
        (DataKind.PAIRS, design(Clm(), Sft())),
        (DataKind.PREFERENCE, design(Ipo())),
        (DataKind.PREFERENCE, design(Sft(), Ipo())),
        (DataKind.PREFERENCE, design(Simpo())),
        (DataKind.PREFERENCE, design(Sft(), Simpo())),
        (DataKind.PREFERENCE, design(Orpo())),
        (DataKind.PREFERENCE, design(Kto())),
        (DataKind.PREFERENCE, design(RewardModel(), Rloo())),
        (DataKind.PREFERENCE, design(Sft(), RewardModel(), Rloo())),
        (DataKind.UNPAIRED, design(Kto())),
        (DataKind.UNPAIRED, design(Sft(), Kto())),
        (DataKind.UNPAIRED, design(Sft())),
        (DataKind.PAIRS, design(Sft(), update=TopLayers(layers=4), layers=4)),
    ],
    ids=lambda value: value.summary() if isinstance(value, Design) else str(value),
)
def test_a_legal_design_passes(kind: DataKind, legal: Design) -> None:
    check(legal, kind, TINY)


@pytest.mark.parametrize(
    ("kind", "illegal", "param", "message"),
    [
        (DataKind.PAIRS, design(Dpo()), "stages", "dpo does not go with pairs data: .* no rejected one"),
        (DataKind.CHAT, design(Ipo()), "stages", "ipo does not go with chat data: .* no rejected one"),
        (DataKind.PAIRS, design(Sft(), Simpo()), "stages", "simpo does not go with pairs data: .* no rejected one"),
        (DataKind.TEXT, design(Orpo()), "stages", "orpo does not go with text data: .* no answers to choose between"),
        (DataKind.PREFERENCE, design(Sft(), Orpo()), "stages", "orpo learns the chosen answer itself"),
        (DataKind.PAIRS, design(Kto()), "stages", "kto does not go with pairs data: .*undesirable"),
        (DataKind.UNPAIRED, design(Dpo()), "stages", "dpo does not go with unpaired data: .*desirable or not"),
        (DataKind.UNPAIRED, design(Clm()), "stages", "clm does not go with unpaired data: "),
        (DataKind.PREFERENCE, design(RewardModel()), "stages", "reward model .*rloo or grpo must follow"),
        (DataKind.PREFERENCE, design(Sft(), RewardModel()), "stages", "reward model .*rloo or grpo must follow"),
        (DataKind.PREFERENCE, design(Rloo()), "stages", "rloo needs a reward.*reward_model stage directly before"),
        (DataKind.PAIRS, design(RewardModel(), Rloo()), "stages", "reward_model does not go with pairs .* no rejected"),
        (DataKind.PREFERENCE, design(Dpo(), Ipo()), "stages", "ipo cannot follow dpo: .*know the text, then"),
        (DataKind.PREFERENCE, design(Dpo(), Sft()), "stages", "sft cannot follow dpo"),
        (DataKind.TEXT, design(Sft()), "stages", "sft does not go with text data"),
        (DataKind.PREFERENCE, design(Clm()), "stages", "clm does not go with preference data"),
        (DataKind.PAIRS, design(Sft(), Clm()), "stages", "clm cannot follow sft"),
        (DataKind.TEXT, design(Clm(), Sft()), "stages", "sft does not go with text data"),
        (DataKind.PAIRS, design(Sft(), layers=7), "architecture.layers", "layers is 7, but tiny has 6"),
        (DataKind.PAIRS, design(Sft(), layers=6), "architecture.layers", "layers is 6, but tiny has 6"),
        (
            DataKind.PAIRS,
            design(Sft(), depth_rule="block_influence"),
            "architecture.depth_rule",
            "block_influence, but all layers are kept",
        ),
        (
            DataKind.PAIRS,
            design(Sft(), rope_rule="linear"),
            "architecture.rope_rule",
            "rope_rule is linear.*rope_factor",
        ),
        (DataKind.PAIRS, design(window=512), "architecture.window", "window is 512.*tiny.* 512"),
        (DataKind.PAIRS, design(layers=9), "architecture.layers", "layers is 9"),
        (DataKind.PAIRS, design(Sft(), kv_heads=3), "architecture.kv_heads", "4 key/value heads of tiny .* to 2, 1"),
        (DataKind.PAIRS, design(Sft(), kv_heads=4), "architecture.kv_heads", "kv_heads is 4"),
        (
            DataKind.PAIRS,
            design(Sft(), update=TopLayers(layers=5), layers=4),
            "stages.update.layers",
            "last 5 .* has 4",
        ),
        (DataKind.PAIRS, design(Sft(), base="smol"), "architecture.base", "the base model 'smol', not 'tiny'"),
    ],
)
def test_an_illegal_design_is_refused_by_field(kind: DataKind, illegal: Design, param: str, message: str) -> None:
    with pytest.raises(IllegalDesign, match=message) as refused:
        check(illegal, kind, TINY)
    assert refused.value.param == param


def test_a_later_stage_may_take_another_update_and_each_is_looked_at() -> None:
    def stages(*updates: object) -> Design:
        made = tuple(Stage(algorithm=a, update=u, optimiser=RATE) for a, u in zip((Sft(), Dpo()), updates, strict=True))
        return Design(architecture=Architecture(base="tiny"), stages=made)

    check(stages(Full(), Lora(rank=16)), DataKind.PREFERENCE, TINY)
    with pytest.raises(IllegalDesign, match=r"bitfit .* biases"):
        check(stages(Full(), BitFit()), DataKind.PREFERENCE, TINY)


@pytest.mark.parametrize("update", [Prompt(tokens=8), Prefix(tokens=8)], ids=lambda update: update.kind)
def test_virtual_tokens_go_with_the_base_model_as_it_is_and_with_no_other_update(update: Prompt | Prefix) -> None:
    check(design(Sft(), Dpo(), update=update), DataKind.PREFERENCE, TINY)
    with pytest.raises(IllegalDesign, match=f"{update.kind} cannot be merged.*layers") as refused:
        check(design(Sft(), update=update, layers=4), DataKind.PAIRS, TINY)
    assert refused.value.param == "stages.update.kind"
    for updates in ((update, ADAPTER), (ADAPTER, update), (update, update.model_copy(update={"tokens": 9}))):
        stages = tuple(
            Stage(algorithm=a, update=u, optimiser=RATE) for a, u in zip((Sft(), Dpo()), updates, strict=True)
        )
        with pytest.raises(IllegalDesign, match="All stages need the same update"):
            check(Design(architecture=Architecture(base="tiny"), stages=stages), DataKind.PREFERENCE, TINY)
    with pytest.raises(IllegalDesign, match="tiny is an encoder"):
        check(design(Mlm(), update=update), DataKind.TEXT, entry(family="encoder"))


@pytest.mark.parametrize(
    ("update", "algorithm"), [(rule.kind, algorithm) for rule in UPDATES for algorithm in rule.refused]
)
def test_an_update_is_refused_with_the_reason_where_an_algorithm_is_not_for_it(update: str, algorithm: str) -> None:
    sizes = {"adalora": {"rank": 8}, "prompt": {"tokens": 8}, "prefix": {"tokens": 8}}
    names = ["reward_model", "rloo"] if algorithm == "reward_model" else [algorithm]
    stages = [
        {
            "algorithm": {"kind": name},
            "update": {"kind": update, **sizes[update]} if name == algorithm else ADAPTER.model_dump(),
            "optimiser": {"learning_rate": 1e-3},
        }
        for name in names
    ]
    planned = Design.model_validate({"architecture": {"base": "tiny"}, "stages": stages})
    kind = DataKind.PREFERENCE if algorithm == "reward_model" else DataKind.PROMPTS
    with pytest.raises(IllegalDesign, match=f"{update} does not go with {algorithm}: ") as refused:
        check(planned, kind, TINY, rewarded=True)
    assert refused.value.param == "stages.update.kind"


def test_adapters_on_embeddings_need_an_output_head_of_its_own() -> None:
    placed = design(Sft(), update=Lora(rank=8, placement="embeddings"))
    check(placed, DataKind.PAIRS, entry(tied=False))
    with pytest.raises(IllegalDesign, match=r"tiny ties its input embeddings.*all, attention, mlp") as refused:
        check(placed, DataKind.PAIRS, TINY)
    assert refused.value.param == "stages.update.placement"


def test_a_program_for_decoders_is_refused_for_an_encoder() -> None:
    with pytest.raises(IllegalDesign, match="sft needs a decoder model, but tiny is an encoder"):
        check(design(Sft()), DataKind.PAIRS, entry(family="encoder"))


def test_training_biases_alone_needs_biases() -> None:
    check(design(Sft(), update=BitFit()), DataKind.PAIRS, entry(biases=True))
    with pytest.raises(IllegalDesign, match="tiny has none") as refused:
        check(design(Sft(), update=BitFit()), DataKind.PAIRS, TINY)
    assert refused.value.param == "stages.update.kind"


def test_a_single_head_cannot_be_pooled_further() -> None:
    with pytest.raises(IllegalDesign, match="no smaller number"):
        check(design(Sft(), kv_heads=1), DataKind.PAIRS, entry(kv_heads=1))


def test_a_family_without_a_window_is_refused_one() -> None:
    with pytest.raises(IllegalDesign, match=r"tiny \(GPT2LMHeadModel\) cannot be set") as refused:
        check(design(Sft(), window=64), DataKind.PAIRS, entry(architecture="GPT2LMHeadModel", attention_window=None))
    assert refused.value.param == "architecture.window"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (
            {"rope": None, "architecture": "GPT2LMHeadModel"},
            r"tiny \(GPT2LMHeadModel\) already uses RoPE scaling",
        ),
        (
            {"rope": "scaled"},
            r"tiny \(LlamaForCausalLM\) already uses RoPE scaling",
        ),
    ],
    ids=str,
)
def test_a_context_is_lengthened_only_where_positions_are_plain_rotary_ones(facts: dict, reason: str) -> None:
    with pytest.raises(IllegalDesign, match=f"rope_factor is 2, but {reason}") as refused:
        check(design(Sft(), rope_factor=2), DataKind.PAIRS, entry(**facts))
    assert refused.value.param == "architecture.rope_factor"


def test_the_limits_are_those_of_the_base_model() -> None:
    check(design(Sft(), base="smol", layers=29, kv_heads=1), DataKind.PAIRS, SMOL)


def test_what_failed_on_the_models_twin_is_refused_with_the_reason() -> None:
    failing = entry(unsupported={"dora": "it has experts", "kv_heads": "it has no k_proj", "rope_factor": "no"})
    assert "it has experts" in str(update_refusal("dora", failing))
    assert update_refusal("lora", failing) is None
    for wanted, param in (
        (design(Sft(), update=Dora(rank=8)), "stages.update.kind"),
        (design(Sft(), kv_heads=1), "architecture.kv_heads"),
        (design(Sft(), rope_factor=2.0), "architecture.rope_factor"),
    ):
        check(wanted, DataKind.PAIRS, TINY)
        with pytest.raises(IllegalDesign) as refused:
            check(wanted, DataKind.PAIRS, failing)
        assert refused.value.param == param


def test_a_search_leaves_out_what_failed_on_the_twin() -> None:
    failing = entry(unsupported={"dora": "it has experts", "layers": "it has no list of layers", "lora": "no"})
    (model,) = space_of(models=(failing,)).models
    assert {"dora", "lora"}.isdisjoint(model.updates)
    assert (model.choices["layers"], model.lora) == ((6,), False)
    assert len(model.choices["kv_heads"]) > 1
    _, default = baselines(space_of(models=(failing,)))
    assert [stage.update.kind for stage in default.stages] == ["full"]
    with pytest.raises(IllegalDesign, match="it has experts"):
        space_of(models=(failing,), pin=Pin(update=("dora",)))
    with pytest.raises(IllegalDesign) as refused:
        space_of(models=(failing,), pin=Pin(layers=(4,)))
    assert refused.value.param == "search.pin.layers"
    assert space_of(models=(failing,), pin=Pin(layers=(6,))).models[0].choices["layers"] == (6,)
