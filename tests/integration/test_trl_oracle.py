"""TRL is the oracle: for the same rows its trainers have the same tokens, targets, loss and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from luthier.algorithms import Algorithm, Clm, Dpo, Ipo, Kto, Orpo, RewardModel, Sft, Simpo
from luthier.design import Optimiser
from luthier.task import DataKind
from luthier.updates import Full
from tests import data_samples
from tests.textbook import as_conversation, first_step, largest_difference
from workers.cache import Base
from workers.train import updates
from workers.train.algorithms import objective
from workers.train.data.tokenize import Renderer, Tokens
from workers.train.stage_trainer import StageTrainer, data_order

pytestmark = pytest.mark.xdist_group("trl")  # its import takes seconds: let one process pay

ROWS = 6
GENERATION_MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' + '\n' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QUIET: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "activation_checkpointing": False,
    "report_to": "none",
    "max_length": 512,
    "remove_unused_columns": False,
}

Row = dict[str, Any]


def trailing_space(row: Row) -> Row:
    """The form "Question: … Answer: " + "answer", whose tokens do not part where the columns do."""
    return {**row, "prompt": row["prompt"] + " Answer: "}


def messages_alone(row: Row) -> Row:
    """A chat row without our weights, which TRL does not know."""
    return {"messages": [{k: m[k] for k in ("role", "content")} for m in row["messages"]]}


def untouched(row: Row) -> Row:
    return row


# name: kind, rows, how they are worded, whether the tokenizer has a chat template
SHAPES: dict[str, tuple[DataKind, list[Row], Callable[[Row], Row], bool]] = {
    "text": (DataKind.TEXT, data_samples.text(ROWS), untouched, False),
    "plain pairs": (DataKind.PAIRS, data_samples.pairs(ROWS), untouched, False),
    "plain pairs that share a token": (DataKind.PAIRS, data_samples.pairs(ROWS), trailing_space, False),
    "conversational pairs": (DataKind.PAIRS, data_samples.pairs(ROWS), as_conversation, True),
    "chat": (DataKind.CHAT, data_samples.chat(ROWS), messages_alone, True),
    "plain preferences": (DataKind.PREFERENCE, data_samples.preference(ROWS), untouched, False),
    "conversational preferences": (DataKind.PREFERENCE, data_samples.preference(ROWS), as_conversation, True),
    "plain unpaired labels": (DataKind.UNPAIRED, data_samples.unpaired(ROWS), untouched, False),
    "conversational unpaired labels": (DataKind.UNPAIRED, data_samples.unpaired(ROWS), as_conversation, True),
}


def shape(name: str, tiny: Base) -> tuple[DataKind, list[Row], PreTrainedTokenizerBase]:
    kind, rows, wording, templated = SHAPES[name]
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.chat_template = GENERATION_MARKED if templated else None
    return kind, [wording(row) for row in rows], tokenizer


def policy(tiny: Base) -> PreTrainedModel:
    """The tiny model moved a little, so that it differs from its reference."""
    model = copy.deepcopy(tiny.model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def our_examples(algorithm: Algorithm, name: str, tiny: Base) -> list[tuple[Tokens, ...]]:
    kind, rows, tokenizer = shape(name, tiny)
    render = Renderer(tokenizer, window=512, max_tokens=512)
    return [example for row in rows for example in objective(algorithm).examples(row, kind, render)]


def our_step(
    algorithm: Algorithm, name: str, tiny: Base, monkeypatch: pytest.MonkeyPatch
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one step of the loop on all rows, at the policy's weights."""
    applied = updates.apply(copy.deepcopy(tiny.model), Full(), seed=0)
    trainer = StageTrainer(
        applied=applied,
        objective=objective(algorithm),
        examples=our_examples(algorithm, name, tiny),
        optimiser=Optimiser(learning_rate=1e-4, batch_size=ROWS),
        seed=0,
    )
    trainer.keep_reference()
    applied.model.load_state_dict(policy(tiny).state_dict())
    report, gradients = first_step(trainer, monkeypatch)
    return report.values["train_loss"], gradients


def sft_trainer(algorithm: Clm | Sft, name: str, tiny: Base, folder: Path) -> SFTTrainer:
    kind, rows, tokenizer = shape(name, tiny)
    answers_only = isinstance(algorithm, Sft)
    config = SFTConfig(
        str(folder),
        completion_only_loss=answers_only if kind is DataKind.PAIRS else None,
        assistant_only_loss=answers_only and kind is DataKind.CHAT,
        **QUIET,
    )
    return SFTTrainer(policy(tiny), args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


def dpo_trainer(algorithm: Dpo | Ipo, name: str, tiny: Base, folder: Path) -> DPOTrainer:
    _, rows, tokenizer = shape(name, tiny)
    loss_type = "ipo" if isinstance(algorithm, Ipo) else "sigmoid"
    return DPOTrainer(
        policy(tiny),
        ref_model=copy.deepcopy(tiny.model),
        args=DPOConfig(str(folder), beta=algorithm.beta, loss_type=loss_type, **QUIET),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def encoded(chosen: Tokens, rejected: Tokens) -> Row:
    """A pair as the trainers without a reference lay it out. Their own tokens are not ours: they put an end token
    after what a chat template ends with, and a beginning token where the tokenizer would not."""
    row: Row = {}
    for name, tokens in (("chosen", chosen), ("rejected", rejected)):
        row[f"{name}_input_ids"] = list(tokens.ids)
        row[f"{name}_attention_mask"] = [1] * len(tokens)
        row[f"{name}_labels"] = [i if t else -100 for i, t in zip(tokens.ids, tokens.target, strict=True)]
    return row


class EncodedCPOTrainer(CPOTrainer):
    def tokenize_row(self, row: Row, model: object = None) -> Row:
        return row


class EncodedORPOTrainer(ORPOTrainer):
    def tokenize_row(self, row: Row, model: object = None) -> Row:
        return row


def simpo_trainer(algorithm: Simpo, name: str, tiny: Base, folder: Path) -> CPOTrainer:
    config = CPOConfig(
        str(folder), loss_type="simpo", cpo_alpha=0.0, beta=algorithm.beta, simpo_gamma=algorithm.gamma, **QUIET
    )
    rows = [encoded(chosen, rejected) for chosen, rejected in our_examples(algorithm, name, tiny)]
    tokenizer = shape(name, tiny)[2]
    return EncodedCPOTrainer(
        policy(tiny), args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )


def orpo_trainer(algorithm: Orpo, name: str, tiny: Base, folder: Path) -> ORPOTrainer:
    config = ORPOConfig(str(folder), beta=algorithm.beta, **QUIET)
    rows = [encoded(chosen, rejected) for _, chosen, rejected in our_examples(algorithm, name, tiny)]
    tokenizer = shape(name, tiny)[2]
    return EncodedORPOTrainer(
        policy(tiny), args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )


def their_step(
    trainer: SFTTrainer | DPOTrainer | KTOTrainer | RewardTrainer | CPOTrainer | ORPOTrainer,
) -> tuple[float, dict[str, torch.Tensor]]:
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(ROWS)])
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}


def assert_same_step(
    ours: tuple[float, dict[str, torch.Tensor]], theirs: tuple[float, dict[str, torch.Tensor]]
) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        assert largest_difference(ours[1][name], gradient) < 1e-4 * float(gradient.abs().max()), name


LIKELIHOOD = [
    (Clm(), "text"),
    (Sft(), "text"),
    (Clm(), "plain pairs"),
    (Sft(), "plain pairs"),
    (Sft(), "plain pairs that share a token"),
    (Clm(), "conversational pairs"),
    (Sft(), "conversational pairs"),
    (Clm(), "chat"),
    (Sft(), "chat"),
]


@pytest.mark.parametrize(("algorithm", "name"), LIKELIHOOD, ids=lambda value: getattr(value, "kind", value))
def test_likelihood_has_trls_tokens_targets_loss_and_gradients(
    algorithm: Clm | Sft, name: str, tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = sft_trainer(algorithm, name, tiny, tmp_path)
    for (ours,), theirs in zip(our_examples(algorithm, name, tiny), trainer.train_dataset, strict=True):
        assert list(ours.ids) == theirs["input_ids"]
        # TRL labels a sequence's first token too, which nothing predicts
        assert list(ours.target[1:]) == [label != -100 for label in theirs["labels"][1:]]
    assert_same_step(our_step(algorithm, name, tiny, monkeypatch), their_step(trainer))


@pytest.mark.parametrize("name", ["plain preferences", "conversational preferences"])
@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_dpo_has_trls_tokens_targets_loss_and_gradients(
    beta: float, name: str, tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm = Dpo(beta=beta)
    trainer = dpo_trainer(algorithm, name, tiny, tmp_path)
    for answers, theirs in zip(our_examples(algorithm, name, tiny), trainer.train_dataset, strict=True):
        for ours, column in zip(answers, ("chosen_ids", "rejected_ids"), strict=True):
            assert list(ours.ids) == theirs["prompt_ids"] + theirs[column]
            assert ours.targets == len(theirs[column])
            assert all(ours.target[-ours.targets :])
    assert_same_step(our_step(algorithm, name, tiny, monkeypatch), their_step(trainer))


PREFERENCES = ["plain preferences", "conversational preferences"]


@pytest.mark.parametrize("name", PREFERENCES)
@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_ipo_has_trls_loss_and_gradients(
    beta: float, name: str, tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm = Ipo(beta=beta)
    trainer = dpo_trainer(algorithm, name, tiny, tmp_path)
    assert_same_step(our_step(algorithm, name, tiny, monkeypatch), their_step(trainer))


@pytest.mark.parametrize("name", PREFERENCES)
@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 1.0), (10.0, 3.0), (2.5, 0.0)])
def test_simpo_has_trls_loss_and_gradients(
    beta: float, gamma: float, name: str, tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm = Simpo(beta=beta, gamma=gamma)
    trainer = simpo_trainer(algorithm, name, tiny, tmp_path)
    assert_same_step(our_step(algorithm, name, tiny, monkeypatch), their_step(trainer))


@pytest.mark.parametrize("name", PREFERENCES)
@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_orpo_has_trls_loss_and_gradients(
    beta: float, name: str, tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm = Orpo(beta=beta)
    trainer = orpo_trainer(algorithm, name, tiny, tmp_path)
    assert_same_step(our_step(algorithm, name, tiny, monkeypatch), their_step(trainer))


@pytest.mark.parametrize("name", ["plain unpaired labels", "conversational unpaired labels"])
@pytest.mark.parametrize(("beta", "weight"), [(0.1, 1.0), (1.0, 1.0), (0.05, 1.7)])
def test_kto_has_trls_tokens_loss_and_gradients(
    beta: float, weight: float, name: str, tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows in TRL's order: its divergence is estimated from each prompt with the completion of the row before."""
    algorithm = Kto(beta=beta, desirable_weight=weight)
    _, rows, tokenizer = shape(name, tiny)
    order = data_order(ROWS, 1.0, seed=0)
    config = KTOConfig(str(tmp_path), beta=beta, desirable_weight=weight, per_device_train_batch_size=ROWS, **QUIET)
    trainer = KTOTrainer(
        policy(tiny),
        ref_model=copy.deepcopy(tiny.model),
        args=config,
        train_dataset=Dataset.from_list([rows[i] for i in order]),
        processing_class=tokenizer,
    )
    examples = our_examples(algorithm, name, tiny)
    for (ours,), theirs in zip([examples[i] for i in order], trainer.train_dataset, strict=True):
        assert list(ours.ids) == theirs["prompt_ids"] + theirs["completion_ids"]
        assert (ours.targets, ours.desirable) == (len(theirs["completion_ids"]), theirs["label"])
    assert_same_step(our_step(algorithm, name, tiny, monkeypatch), their_step(trainer))


@pytest.mark.parametrize("name", PREFERENCES)
def test_a_reward_model_has_trls_loss_and_gradients(
    name: str, tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rows, tokenizer = shape(name, tiny)
    ours = StageTrainer(
        applied=updates.apply(policy(tiny), Full(), seed=0),
        objective=objective(RewardModel()),
        examples=our_examples(RewardModel(), name, tiny),
        optimiser=Optimiser(learning_rate=1e-4, batch_size=ROWS),
        seed=5,
    )
    config = policy(tiny).config
    config.num_labels = 1
    classifier = AutoModelForSequenceClassification.from_config(config)
    classifier.model.load_state_dict(policy(tiny).model.state_dict())
    classifier.load_state_dict({"score.weight": ours.head["score.weight"].detach()}, strict=False)
    theirs = RewardTrainer(
        classifier,
        args=RewardConfig(str(tmp_path), **QUIET),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    report, gradients = first_step(ours, monkeypatch)
    assert_same_step((report.values["train_loss"], gradients), their_step(theirs))
