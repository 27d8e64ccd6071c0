"""Plain computations that training and judging are held against: transformers alone, one sequence at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from workers.train import stage_trainer
from workers.train.data.tokenize import Tokens
from workers.train.stage_trainer import StageTrainer, StepReport

Row = dict[str, Any]


def logps(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    """Log-probability of each token but the first, by a plain forward over this one sequence: [T - 1]."""
    ids_T = torch.tensor(ids, device=model.device)
    logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0, :-1]
    return logits_TV.log_softmax(-1).gather(1, ids_T[1:, None]).squeeze(1)


def target_logps(model: PreTrainedModel, tokens: Tokens) -> torch.Tensor:
    """The same for the targets alone: [targets]."""
    assert not tokens.target[0]
    return logps(model, tokens.ids)[torch.tensor(tokens.target[1:])]


def largest_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Of two tensors of one shape."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).detach().abs().max())


def as_conversation(row: Row) -> Row:
    """A plain-text row of pairs or preferences as messages."""
    roles = {"prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant"}
    return {
        column: [{"role": roles[column], "content": value}] if column in roles else value
        for column, value in row.items()
    }


def first_step(trainer: StageTrainer, monkeypatch: pytest.MonkeyPatch) -> tuple[StepReport, dict[str, torch.Tensor]]:
    """Take one step of a trainer; the report, and the gradient that its optimiser saw, unclipped."""
    gradients: dict[str, torch.Tensor] = {}

    def note(*_: object) -> None:
        gradients.update({name: p.grad.clone() for name, p in trainer.parameters.items() if p.grad is not None})

    monkeypatch.setattr(stage_trainer, "MAX_GRAD_NORM", float("inf"))
    trainer.adamw.register_step_pre_hook(note)
    return trainer.advance(), gradients
