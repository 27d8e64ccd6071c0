"""Generalised knowledge distillation: TRL's loss, the student's own answers, and which models can teach."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import one_hot
from transformers import PreTrainedModel
from trl.experimental.gkd import GKDConfig, GKDTrainer

from luthier.algorithms import Gkd
from luthier.design import Optimiser
from luthier.errors import TrialFailed
from luthier.task import DataKind
from luthier.updates import Full
from tests import data_samples
from workers.cache import Base
from workers.train import updates
from workers.train.algorithms import Context, Example, Teacher, objective
from workers.train.algorithms.distillation import jensen_shannon
from workers.train.data.tokenize import Renderer
from workers.train.stage_trainer import StageTrainer

ROWS = 4
QUIET: dict[str, Any] = {"use_cpu": True, "bf16": False, "activation_checkpointing": False, "report_to": "none"}
NEW_TOKENS = 8


def moved(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """The model with other weights."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1 + 0.1 * torch.randn(parameter.shape, generator=generator))
    return other


def teacher(tiny: Base) -> Teacher:
    return Teacher(model=moved(tiny.model, 1), tokenizer=tiny.tokenizer, max_new_tokens=NEW_TOKENS)


def examples(tiny: Base) -> list[Example]:
    render = Renderer(tiny.tokenizer, window=512, max_tokens=512)
    return [(tokens,) for row in data_samples.pairs(ROWS) for tokens in render.answers(row, DataKind.PAIRS)]


def stage(tiny: Base, algorithm: Gkd) -> StageTrainer:
    """A trainer of all rows in one step, at weights that are not the teacher's."""
    return StageTrainer(
        applied=updates.apply(moved(tiny.model, 2), Full(), seed=0),
        objective=objective(algorithm, Context(teacher=teacher(tiny))),
        examples=examples(tiny),
        optimiser=Optimiser(learning_rate=1e-4, batch_size=ROWS),
        seed=0,
    )


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_divergence_is_trls(beta: float) -> None:
    student_NV, teacher_NV = torch.randn(2, 7, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theirs = GKDTrainer.generalized_jsd_loss(student_NV[None], teacher_NV[None], beta=beta, reduction="none")[0]
    assert torch.allclose(jensen_shannon(student_NV, teacher_NV, beta), theirs.sum(-1), rtol=1e-12, atol=1e-12)


def test_the_divergence_of_a_distribution_from_itself_is_zero() -> None:
    logits_NV = torch.randn(3, 11, dtype=torch.float64)
    for beta in (0.0, 0.3, 1.0):
        assert float(jensen_shannon(logits_NV, logits_NV + 2.0, beta).abs().max()) < 1e-12


def test_a_certain_teacher_at_beta_zero_is_supervised_fine_tuning() -> None:
    logits_NV, labels_N = torch.randn(5, 13, dtype=torch.float64), torch.tensor([1, 4, 0, 12, 7])
    certain_NV = 1e4 * one_hot(labels_N, 13).double()
    loss_N = torch.nn.functional.cross_entropy(logits_NV, labels_N, reduction="none")
    assert torch.allclose(jensen_shannon(logits_NV, certain_NV, 0.0), loss_N)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_a_step_on_the_datasets_answers_is_that_of_trls_trainer(beta: float, tiny: Base, tmp_path: Path) -> None:
    trainer = stage(tiny, Gkd(teacher="t", share=0.0, beta=beta))
    ids = [tokens.ids for (tokens,) in trainer.examples]
    longest = max(map(len, ids))
    inputs = {
        "input_ids": torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
        "labels": torch.full((len(ids), longest), -100),
    }
    for row, (tokens,) in enumerate(trainer.examples):
        for t, (token, is_target) in enumerate(zip(tokens.ids, tokens.target, strict=True)):
            if is_target:
                inputs["labels"][row, t] = token
    theirs = moved(tiny.model, 2)
    config = GKDConfig(str(tmp_path), beta=beta, lmbda=0.0, **QUIET)
    gkd: Any = GKDTrainer(
        model=theirs,
        teacher_model=moved(tiny.model, 1),
        args=config,
        data_collator=lambda rows: rows,
        train_dataset=Dataset.from_list([{"input_ids": list(row)} for row in ids]),
        processing_class=tiny.tokenizer,
    )
    targets = sum(tokens.targets for (tokens,) in trainer.examples)
    loss = gkd.compute_loss(gkd.model, inputs, num_items_in_batch=targets)
    loss.backward()
    wanted = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1e9)
    report = trainer.advance()
    assert report.values["train_loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    assert report.values["grad_norm"] == pytest.approx(float(wanted), rel=1e-3)
    assert report.values["on_policy"] == 0.0


def test_own_answers_are_targets_behind_the_same_prompts_and_repeat_with_the_seed(tiny: Base) -> None:
    first, again = (stage(tiny, Gkd(teacher="t", share=1.0)) for _ in range(2))
    made, same = (trainer.objective.batch(trainer.examples, trainer) for trainer in (first, again))
    assert made.examples == same.examples
    for (own,), (given,) in zip(made.examples, first.examples, strict=True):
        prompt = given.target.index(True)
        assert own.ids[:prompt] == given.ids[:prompt]
        assert own.target == (False,) * prompt + (True,) * (len(own) - prompt)
        assert 1 <= own.targets <= NEW_TOKENS
    assert made.values["on_policy"] == 1.0


def test_the_share_of_steps_on_own_answers_is_that_of_the_design(tiny: Base) -> None:
    trainer = stage(tiny, Gkd(teacher="t", share=0.25))
    taken = []
    for trainer.step in range(200):
        try:
            taken.append(trainer.objective.batch([], trainer).values["on_policy"])
        except ValueError:  # no prompts to answer: it went for own answers
            taken.append(1.0)
    assert sum(taken) / len(taken) == pytest.approx(0.25, abs=0.08)


def test_without_its_teacher_a_trial_fails_and_says_which_one_it_needs(tiny: Base) -> None:
    trainer = stage(tiny, Gkd(teacher="big-chat", share=0.0))
    trainer.objective = objective(Gkd(teacher="big-chat", share=0.0))
    with pytest.raises(TrialFailed, match="big-chat"):
        trainer.advance()
