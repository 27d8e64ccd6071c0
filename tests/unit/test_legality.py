"""Which designs go with which data and which base model, and how a refusal is explained."""

import pytest

from luthier.design import (
    Architecture,
    BitFit,
    Clm,
    Design,
    Dpo,
    Full,
    Ipo,
    Lora,
    Optimiser,
    Orpo,
    Prefix,
    Prompt,
    Sft,
    Simpo,
    Stage,
    TopLayers,
)
from luthier.errors import IllegalDesign
from luthier.task import DataKind
from search.legality import RULES, check, kv_head_choices, programs, refusal
from tests.unit.search_samples import SMOL, TINY, entry

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
        (DataKind.PREFERENCE, ("dpo", "sft+dpo", "sft", "ipo", "sft+ipo", "simpo", "sft+simpo", "orpo")),
    ],
)
def test_each_kind_of_data_has_its_programs_the_usual_one_first(kind: DataKind, expected: tuple[str, ...]) -> None:
    assert programs(kind) == expected


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.program)
def test_every_rule_speaks_of_every_kind_of_data_once(rule) -> None:
    assert sorted([*rule.fits, *rule.refused]) == sorted(DataKind)


def test_a_refusal_says_why_and_what_goes_instead() -> None:
    reason = refusal("dpo", DataKind.CHAT)
    assert reason is not None
    assert "dpo does not go with chat data: each conversation has one continuation" in reason
    assert "sft learns the assistant's messages; clm learns every message alike" in reason


def test_a_program_that_goes_is_not_refused() -> None:
    assert refusal("sft", DataKind.PREFERENCE) is None


def test_an_unknown_program_is_refused_with_the_known_ones() -> None:
    reason = refusal("grpo", DataKind.TEXT)
    assert reason == "there is no program 'grpo'; for text data: clm learns every token"


@pytest.mark.parametrize(("heads", "choices"), [(1, (1,)), (3, (3, 1)), (4, (4, 2, 1)), (12, (12, 6, 4, 3, 2, 1))])
def test_heads_can_be_pooled_to_their_divisors(heads: int, choices: tuple[int, ...]) -> None:
    assert kv_head_choices(heads) == choices


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
        (DataKind.PREFERENCE, design(Sft(), Dpo())),
        (DataKind.PREFERENCE, design(Ipo())),
        (DataKind.PREFERENCE, design(Sft(), Ipo())),
        (DataKind.PREFERENCE, design(Simpo())),
        (DataKind.PREFERENCE, design(Sft(), Simpo())),
        (DataKind.PREFERENCE, design(Orpo())),
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
        (DataKind.PREFERENCE, design(Dpo(), Ipo()), "stages", r"no program 'dpo\+ipo'"),
        (DataKind.TEXT, design(Sft()), "stages", "sft does not go with text data"),
        (DataKind.PREFERENCE, design(Clm()), "stages", "clm does not go with preference data"),
        (DataKind.PAIRS, design(Clm(), Sft()), "stages", r"no program 'clm\+sft'"),
        (DataKind.PAIRS, design(Sft(), layers=7), "architecture.layers", "layers is 7, but tiny has 6"),
        (DataKind.PAIRS, design(Sft(), layers=6), "architecture.layers", "leave the field out to keep all"),
        (
            DataKind.PAIRS,
            design(Sft(), depth_rule="block_influence"),
            "architecture.depth_rule",
            "block_influence, but all layers are kept",
        ),
        (DataKind.PAIRS, design(window=512), "architecture.window", "each token of tiny sees 512 at most"),
        (DataKind.PAIRS, design(layers=9), "architecture.layers", "layers is 9"),
        (DataKind.PAIRS, design(Sft(), kv_heads=3), "architecture.kv_heads", "4 key/value heads of tiny .* to 2, 1"),
        (DataKind.PAIRS, design(Sft(), kv_heads=4), "architecture.kv_heads", "kv_heads is 4"),
        (
            DataKind.PAIRS,
            design(Sft(), update=TopLayers(layers=5), layers=4),
            "stages.update.layers",
            "last 5 .* has 4",
        ),
        (DataKind.PAIRS, design(Sft(), base="smol"), "architecture.base", "for base model 'smol', not 'tiny'"),
    ],
)
def test_an_illegal_design_is_refused_by_field(kind: DataKind, illegal: Design, param: str, message: str) -> None:
    with pytest.raises(IllegalDesign, match=message) as refused:
        check(illegal, kind, TINY)
    assert refused.value.param == param


@pytest.mark.parametrize("update", [Prompt(tokens=8), Prefix(tokens=8)], ids=lambda update: update.kind)
def test_virtual_tokens_go_with_the_base_model_as_it_is_and_with_no_other_update(update: Prompt | Prefix) -> None:
    check(design(Sft(), Dpo(), update=update), DataKind.PREFERENCE, TINY)
    with pytest.raises(IllegalDesign, match="cannot be folded into weights: its adapter is all there is") as refused:
        check(design(Sft(), update=update, layers=4), DataKind.PAIRS, TINY)
    assert refused.value.param == "stages.update.kind"
    stages = tuple(Stage(algorithm=a, update=u, optimiser=RATE) for a, u in ((Sft(), update), (Dpo(), ADAPTER)))
    with pytest.raises(IllegalDesign, match="same update"):
        check(Design(architecture=Architecture(base="tiny"), stages=stages), DataKind.PREFERENCE, TINY)


def test_adapters_on_embeddings_need_an_output_head_of_its_own() -> None:
    placed = design(Sft(), update=Lora(rank=8, placement="embeddings"))
    check(placed, DataKind.PAIRS, entry(tied=False))
    with pytest.raises(
        IllegalDesign, match=r"input embeddings as its output head too.*all, attention or mlp"
    ) as refused:
        check(placed, DataKind.PAIRS, TINY)
    assert refused.value.param == "stages.update.placement"


def test_stages_share_one_update_so_that_an_adapter_goes_on() -> None:
    stages = (
        Stage(algorithm=Sft(), update=Lora(rank=8), optimiser=RATE),
        Stage(algorithm=Dpo(), update=Lora(rank=16), optimiser=RATE),
    )
    with pytest.raises(IllegalDesign, match="same update"):
        check(Design(architecture=Architecture(base="tiny"), stages=stages), DataKind.PREFERENCE, TINY)


def test_a_program_for_decoders_is_refused_for_an_encoder() -> None:
    with pytest.raises(IllegalDesign, match="sft needs a decoder model, but tiny is an encoder"):
        check(design(Sft()), DataKind.PAIRS, entry(family="encoder"))


def test_training_biases_alone_needs_biases() -> None:
    check(design(Sft(), update=BitFit()), DataKind.PAIRS, entry(biases=True))
    with pytest.raises(IllegalDesign, match="bitfit moves biases alone, and tiny has none") as refused:
        check(design(Sft(), update=BitFit()), DataKind.PAIRS, TINY)
    assert refused.value.param == "stages.update.kind"


def test_a_single_head_cannot_be_pooled_further() -> None:
    with pytest.raises(IllegalDesign, match="no smaller number"):
        check(design(Sft(), kv_heads=1), DataKind.PAIRS, entry(kv_heads=1))


def test_a_family_without_a_window_is_refused_one() -> None:
    with pytest.raises(IllegalDesign, match="tiny, a GPT2LMHeadModel, cannot be set in all layers") as refused:
        check(design(Sft(), window=64), DataKind.PAIRS, entry(architecture="GPT2LMHeadModel", attention_window=None))
    assert refused.value.param == "architecture.window"


def test_the_limits_are_those_of_the_base_model() -> None:
    check(design(Sft(), base="smol", layers=29, kv_heads=1), DataKind.PAIRS, SMOL)
