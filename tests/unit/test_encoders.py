"""Encoders: read in both directions without seeing each other, scored by pseudo-perplexity, taught by masks."""

from __future__ import annotations

import copy
import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedModel

from luthier.algorithms import Mlm
from luthier.design import Architecture
from luthier.errors import UserError
from luthier.models.base_model import BaseModelEntry, read_facts
from luthier.task import DataKind, JudgeSpec
from luthier.trial import Metrics
from tests import data_samples
from tests.textbook import largest_difference
from workers import cache
from workers.cache import Base
from workers.evaluate.judge import evenly, general_bits_per_byte, general_rows, judge, judge_rows, renderer
from workers.train.algorithms.base import Context
from workers.train.algorithms.supervised import MaskedLanguageModelling, mask_tokens
from workers.train.architectures import build
from workers.train.data.padding_free import lay_out
from workers.train.data.tokenize import Masked, Renderer
from workers.train.forward import target_logps
from workers.train.layout_probe import row_layout

CPU = torch.device("cpu")
CLS, SEP, MASK = 2, 3, 4
SEQUENCES = ([5, 90, 17], list(range(40, 73)), [9] * 12, [300, 4, 1000, 8, 2, 77, 1234, 55])
SMALL = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "cls_token_id": 2,
    "sep_token_id": 3,
}
FAMILIES: dict[str, dict[str, object]] = {
    "bert": {},
    "roberta": {"pad_token_id": 1},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_heads": 4, "n_layers": 2},
    "albert": {"embedding_size": 16},
    "modernbert": {"local_attention": 6, "global_attn_every_n_layers": 2},
}


def predicted(ids: list[int], places: list[int] | None = None) -> Masked:
    """A sequence of which these tokens (all, if left out) are to be predicted, and none is hidden."""
    target = tuple(places is None or t in places for t in range(len(ids)))
    return Masked(ids=tuple(ids), labels=tuple(ids), target=target, target_bytes=0, mask=MASK)


def alone(model: PreTrainedModel, tokens: Masked) -> torch.Tensor:
    logits_TV = model(input_ids=torch.tensor([tokens.ids])).logits[0]
    labels_T = torch.tensor(tokens.labels)
    return logits_TV.log_softmax(-1).gather(1, labels_T[:, None])[:, 0][torch.tensor(tokens.target)]


def small_model(family: str) -> PreTrainedModel:
    config = AutoConfig.for_model(family, **(SMALL | FAMILIES.get(family, {})))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForMaskedLM.from_config(config).eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)  # far from uniform predictions, so that a leak shows
    return model


# Unpadded rows


@torch.no_grad()
@pytest.mark.parametrize(
    "architecture", [Architecture(base="t"), Architecture(base="t", layers=2)], ids=["whole", "cut"]
)
def test_each_sequence_scores_as_it_does_alone(architecture: Architecture, encoder: Base) -> None:
    model = build(encoder.model, architecture).double()
    rows = [predicted(ids) for ids in SEQUENCES]
    together = target_logps(model, lay_out(rows, CPU))
    assert largest_difference(together, torch.cat([alone(model, row) for row in rows])) < 1e-10


@torch.no_grad()
def test_changing_one_sequence_leaves_the_others_bit_for_bit(encoder: Base) -> None:
    rows = [predicted(ids) for ids in SEQUENCES]
    other = [*rows[:2], predicted([id_ + 21 for id_ in SEQUENCES[2]]), rows[3]]
    before, after = (lay_out(some, CPU) for some in (rows, other))
    own = before.segment_N == 2
    logp_before, logp_after = target_logps(encoder.model, before), target_logps(encoder.model, after)
    assert torch.equal(logp_before[~own], logp_after[~own])
    assert not torch.equal(logp_before[own], logp_after[own])


@torch.no_grad()
def test_a_token_is_predicted_from_both_sides_where_it_stands(encoder: Base) -> None:
    ids = list(range(40, 60))
    hidden = predicted(ids).with_targets({9: MASK})
    rows = lay_out([predicted([7, 8]), hidden], CPU)
    assert rows.ids_1T[0, 2:].tolist() == [*ids[:9], MASK, *ids[10:]]
    assert rows.predictor_N.tolist() == [0, 1, 2 + 9]
    assert rows.label_N.tolist() == [7, 8, 49]
    before = target_logps(encoder.model, rows)[-1]
    for changed in (3, 15):
        other = predicted([99 if t == changed else token for t, token in enumerate(ids)]).with_targets({9: MASK})
        assert target_logps(encoder.model, lay_out([other], CPU))[-1] != before


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_common_families_are_taken(family: str) -> None:
    """RoBERTa's positions that start late and ModernBERT's two-sided windows included."""
    model = small_model(family)
    assert row_layout(model) == "unpadded"
    rows = [predicted([id_ % 100 + 5 for id_ in ids]) for ids in SEQUENCES]
    together = target_logps(model, lay_out(rows, CPU))
    assert largest_difference(together, torch.cat([alone(model, row) for row in rows])) < 1e-4


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
@pytest.mark.parametrize("family", ["mpnet", "deberta-v2"])
def test_a_family_that_cannot_keep_rows_apart_pads_them(family: str) -> None:
    model = small_model(family)
    assert row_layout(model) == "padded"
    rows = [predicted([id_ % 100 + 5 for id_ in ids]) for ids in SEQUENCES]
    together = target_logps(model, lay_out(rows, CPU))
    assert largest_difference(together, torch.cat([alone(model, row) for row in rows])) < 1e-4


# Text in windows


def test_windows_stand_between_special_tokens_and_hold_each_token_once(encoder: Base) -> None:
    text = data_samples.text(4)[3]["text"]
    windows = Renderer(encoder.tokenizer, window=16, max_tokens=16).bidirectional(text)
    inside = [window.ids[1:-1] for window in windows]
    assert [id_ for ids in inside for id_ in ids] == encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert {(window.ids[0], window.ids[-1]) for window in windows} == {(CLS, SEP)}
    assert [len(window) for window in windows[:-1]] == [16] * (len(windows) - 1)
    assert all(window.target == (False, *[True] * (len(window) - 2), False) for window in windows)
    assert sum(window.target_bytes for window in windows) == len(text.encode())


def test_tokens_that_stand_for_unknown_text_are_no_targets_and_their_bytes_do_not_count(encoder: Base) -> None:
    text = "the cat 猫 eats"
    (window,) = Renderer(encoder.tokenizer, window=32, max_tokens=32).bidirectional(text)
    unknown = window.ids.index(encoder.tokenizer.unk_token_id)
    assert not window.target[unknown]
    assert window.target_bytes == len(b"the cat eats")


# The judge


def spec(**limits: int) -> JudgeSpec:
    return JudgeSpec(
        kind=DataKind.TEXT,
        validation="v",
        test="t",
        objective="perplexity",
        family="encoder",
        **({"window": 32} | limits),
    )


@torch.no_grad()
def textbook(base: Base, rows: list[dict[str, str]], window: int) -> tuple[float, float, int]:
    """Every token masked alone by a plain forward: pseudo-perplexity, bits per byte and tokens."""
    nll, count = 0.0, 0
    for row in rows:
        ids = base.tokenizer(row["text"], add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), window - 2):
            piece = [CLS, *ids[start : start + window - 2], SEP]
            for t in range(1, len(piece) - 1):
                seen = torch.tensor([[*piece[:t], MASK, *piece[t + 1 :]]])
                nll -= float(base.model(input_ids=seen).logits[0, t].log_softmax(-1)[piece[t]])
                count += 1
    size = sum(len(row["text"].encode()) for row in rows)
    return math.exp(nll / count), nll / math.log(2) / size, count


def test_where_every_token_is_scored_the_pseudo_perplexity_is_the_papers(encoder: Base) -> None:
    rows = data_samples.text(3)
    metrics = judge(encoder.model, encoder.tokenizer, spec(pseudo_positions=500), rows)
    perplexity, bits, tokens = textbook(encoder, rows, 32)
    assert metrics.perplexity is None
    assert metrics.pseudo_perplexity == pytest.approx(perplexity, rel=1e-5)
    assert metrics.bits_per_byte == pytest.approx(bits, rel=1e-5)
    assert (metrics.tokens, metrics.rows) == (tokens, 3)


@torch.no_grad()
def test_a_sample_weighs_each_window_by_the_tokens_it_has(encoder: Base) -> None:
    """One token of each window: the mean is over the windows' tokens, not over the windows."""
    rows = data_samples.text(4)
    render = renderer(encoder.tokenizer, spec())
    windows = [window for row in rows for window in render.bidirectional(row["text"])]
    assert len({len(window) for window in windows}) > 1
    nll = 0.0
    for window in windows:
        middle = 1 + (len(window) - 2) // 2
        nll -= float(alone(encoder.model, window.with_targets({middle: MASK}))) * (len(window) - 2)
    tokens, size = sum(w.targets for w in windows), sum(w.target_bytes for w in windows)
    metrics = judge(encoder.model, encoder.tokenizer, spec(pseudo_positions=1), rows)
    assert metrics.pseudo_perplexity == pytest.approx(math.exp(nll / tokens), rel=1e-4)
    assert metrics.bits_per_byte == pytest.approx(nll / math.log(2) / size, rel=1e-4)
    assert metrics.tokens == len(windows)


@pytest.mark.parametrize("limits", [{"pseudo_positions": 500}, {"pseudo_windows": 7, "pseudo_positions": 3}])
def test_the_rows_pseudo_likelihoods_add_up_to_the_totals(limits: dict[str, int], encoder: Base) -> None:
    metrics, found = judge_rows(encoder.model, encoder.tokenizer, spec(**limits), data_samples.text(9))
    assert len(found.nll) == 9
    assert sum(found.tokens) == metrics.tokens
    assert math.exp(sum(found.nll) / metrics.tokens) == pytest.approx(metrics.pseudo_perplexity, rel=1e-12)
    assert sum(found.nll) / math.log(2) / sum(found.bytes) == pytest.approx(metrics.bits_per_byte, rel=1e-12)


def test_the_general_text_has_a_pseudo_likelihood(encoder: Base) -> None:
    of_text = judge(encoder.model, encoder.tokenizer, spec(), list(general_rows()))
    assert general_bits_per_byte(encoder.model, encoder.tokenizer, spec()) == of_text.bits_per_byte


def test_no_more_windows_are_scored_than_the_judge_allows(encoder: Base) -> None:
    metrics = judge(
        encoder.model, encoder.tokenizer, spec(pseudo_windows=3, pseudo_positions=2, window=128), data_samples.text(9)
    )
    assert metrics.tokens == 6


def test_a_sample_lies_evenly_and_never_repeats() -> None:
    assert evenly(10, 3) == [1, 5, 8]
    assert evenly(4, 9) == [0, 1, 2, 3]
    assert evenly(0, 5) == []


def test_older_judges_keep_their_text() -> None:
    old = JudgeSpec(kind=DataKind.TEXT, validation="v", test="t", objective="perplexity")
    assert not {"family", "pseudo_positions", "pseudo_windows"} & old.model_dump().keys()


def test_metrics_have_one_kind_of_perplexity() -> None:
    with pytest.raises(ValueError, match="either a perplexity or a pseudo_perplexity"):
        Metrics(perplexity=2, pseudo_perplexity=2, bits_per_byte=1, tokens=1, rows=1)
    assert "pseudo_perplexity" not in Metrics(perplexity=2, bits_per_byte=1, tokens=1, rows=1).model_dump()


# Masks


@dataclass
class Standing:
    """A policy that only says where it stands."""

    model: PreTrainedModel
    step_seed: int = 1
    asked: list[int] = field(default_factory=list)


def test_each_step_draws_its_own_masks_and_the_same_ones_again(encoder: Base) -> None:
    learn = MaskedLanguageModelling(Mlm(), Context())
    render = Renderer(encoder.tokenizer, window=64, max_tokens=64)
    windows = [example for row in data_samples.text(6) for example in learn.examples(row, DataKind.TEXT, render)]
    first, again, next_ = (learn.batch(windows, Standing(encoder.model, seed)).examples for seed in (1, 1, 2))
    assert first == again != next_
    assert all(one.labels == window.labels for (one,), (window,) in zip(first, windows, strict=True))


def test_a_batch_in_which_chance_chooses_nothing_still_learns_a_token(encoder: Base) -> None:
    (window,) = Renderer(encoder.tokenizer, window=8, max_tokens=8).bidirectional("cat")
    learn = MaskedLanguageModelling(Mlm(mask=1e-9), Context())
    ((masked,),) = learn.batch([(window,)], Standing(encoder.model)).examples
    assert masked.targets == 1
    assert masked.ids[1] == MASK


def test_special_tokens_are_never_chosen() -> None:
    window = predicted([CLS, *range(100, 200), SEP], places=list(range(1, 101)))
    masked = mask_tokens(window, 0.999, 2048, torch.Generator().manual_seed(0))
    assert (masked.ids[0], masked.ids[-1]) == (CLS, SEP)
    assert masked.targets >= 95
    assert not masked.target[0]
    assert not masked.target[-1]


# What is read of an encoder's files, and the head that some lack


def test_an_encoders_facts_say_so(encoder_entry: BaseModelEntry) -> None:
    facts = encoder_entry.facts
    assert (facts.architecture, facts.family, facts.head) == ("BertForMaskedLM", "encoder", "own")
    assert (facts.layers, facts.kv_heads, facts.context, facts.biases) == (4, 4, 128, True)
    assert facts.attention_window is None
    assert "head" not in facts.model_dump()


def test_robertas_positions_that_are_kept_for_padding_are_no_context(
    encoder_entry: BaseModelEntry, tmp_path: Path
) -> None:
    folder = shutil.copytree(encoder_entry.source, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 514}
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["RobertaForMaskedLM"]}))
    assert read_facts(folder).context == 512


def test_what_is_neither_kind_of_language_model_is_refused(encoder_entry: BaseModelEntry, tmp_path: Path) -> None:
    folder = shutil.copytree(encoder_entry.source, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(UserError, match=r"BertForSequenceClassification.*ForCausalLM.*ForMaskedLM"):
        read_facts(folder)


def test_an_encoder_without_a_head_starts_with_an_identity_and_its_own_embeddings(
    encoder: Base, tmp_path: Path
) -> None:
    encoder.model.base_model.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    entry = BaseModelEntry(name="headless", source=str(tmp_path), facts=read_facts(tmp_path))
    assert (entry.facts.architecture, entry.facts.head) == ("BertModel", "tied")
    random = torch.random.get_rng_state()
    started = cache.base(entry).model
    assert torch.equal(torch.random.get_rng_state(), random)
    head = started.cls.predictions
    assert torch.equal(head.transform.dense.weight, torch.eye(128))
    assert head.decoder.weight is started.get_input_embeddings().weight
    assert not head.decoder.bias.any()
    assert not head.transform.dense.bias.any()
    assert head.decoder.bias is head.bias
    assert torch.equal(head.transform.LayerNorm.weight, torch.ones(128))
    own = copy.deepcopy(encoder.model).base_model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in started.base_model.state_dict().items())
