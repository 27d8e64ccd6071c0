"""TRL is the oracle of online RL too: the same rollouts give the same loss and gradients."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from luthier.algorithms import Grpo, Raft, Rloo
from luthier.design import Optimiser
from luthier.task import TextSimilarity
from luthier.updates import Full
from tests import data_samples
from tests.playing import prompts, world
from tests.textbook import first_step, largest_difference, target_logps
from workers.cache import Base
from workers.train import updates
from workers.train.algorithms import Context, objective
from workers.train.rollouts.play import Rollout, play
from workers.train.stage_trainer import StageTrainer

pytestmark = pytest.mark.xdist_group("trl")  # its import takes seconds: let one process pay

ROWS, GROUP = 4, 4
GRADER = TextSimilarity(evaluation_metric="fuzzy_match")  # hardly two answers earn the same

Step = tuple[float, dict[str, torch.Tensor]]


def policy(tiny: Base) -> PreTrainedModel:
    """The tiny model moved a little, so that it differs from its reference."""
    model = copy.deepcopy(tiny.model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def player(algorithm: Grpo | Rloo | Raft, tiny: Base) -> StageTrainer:
    """A trainer at the policy's weights, whose stage started from the tiny model's."""
    learn = objective(algorithm, Context(world=world(tiny, grader=GRADER)))
    trainer = StageTrainer(
        applied=updates.apply(copy.deepcopy(tiny.model), Full(), seed=0),
        objective=learn,
        examples=prompts(learn, tiny, ROWS),
        optimiser=Optimiser(learning_rate=1e-4, batch_size=ROWS),
        seed=0,
    )
    trainer.keep_reference()
    trainer.model.load_state_dict(policy(tiny).state_dict())
    return trainer


def rollouts(trainer: StageTrainer, tiny: Base) -> list[Rollout]:
    """What the trainer will draw in its next step."""
    rows = [data_samples.pairs(ROWS)[i] for i in trainer.order]
    return play(trainer.model, world(tiny, grader=GRADER), rows, attempts=GROUP, seed=trainer.step_seed)


def our_step(trainer: StageTrainer, monkeypatch: pytest.MonkeyPatch) -> Step:
    report, gradients = first_step(trainer, monkeypatch)
    return report.values["train_loss"], gradients


def their_step(algorithm: Grpo | Rloo, drawn: list[Rollout], order: list[int], tiny: Base, folder: Path) -> Step:
    prompt_rows = [{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in data_samples.pairs(ROWS)]
    settings: dict[str, Any] = {
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "beta": algorithm.beta,
        "num_generations": GROUP,
        "per_device_train_batch_size": ROWS * GROUP,
        "max_completion_length": 6,
        "activation_checkpointing": False,
    }
    config, kind = (GRPOConfig, GRPOTrainer) if isinstance(algorithm, Grpo) else (RLOOConfig, RLOOTrainer)
    trainer = kind(
        policy(tiny),
        reward_funcs=lambda **_: [rollout.reward for rollout in drawn],
        args=config(str(folder), **settings),
        train_dataset=Dataset.from_list(prompt_rows),
        processing_class=copy.deepcopy(tiny.tokenizer),
    )
    said = [list(rollout.tokens.ids[-rollout.tokens.targets :]) for rollout in drawn]
    given = (said, None) if isinstance(algorithm, Grpo) else said
    trainer._generate_single_turn = lambda *_, **__: given
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    batch = trainer._generate_and_score_completions([prompt_rows[i] for i in order for _ in range(GROUP)])
    asked = [ids[mask.bool()].tolist() for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)]
    assert asked == [list(rollout.tokens.ids[: -rollout.tokens.targets]) for rollout in drawn]
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}


def assert_same_step(ours: Step, theirs: Step) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4, abs=1e-6)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        assert largest_difference(ours[1][name], gradient) < 1e-3 * float(gradient.abs().max()), name


@pytest.mark.parametrize(
    "algorithm",
    [
        Grpo(group=GROUP),
        Grpo(group=GROUP, beta=0.5),
        Rloo(group=GROUP, beta=0.0),
        Rloo(group=GROUP, beta=0.05),
    ],
    ids=lambda algorithm: f"{algorithm.kind} {algorithm.beta:g}",
)
def test_rollouts_have_trls_loss_and_gradients(
    algorithm: Grpo | Rloo, tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = player(algorithm, tiny)
    drawn = rollouts(trainer, tiny)
    assert len({rollout.reward for rollout in drawn}) > ROWS
    assert_same_step(our_step(trainer, monkeypatch), their_step(algorithm, drawn, trainer.order, tiny, tmp_path))


def test_raft_learns_the_best_answer_to_each_prompt(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean negative log-likelihood of the tokens of the best of each group."""
    trainer = player(Raft(group=GROUP), tiny)
    drawn = rollouts(trainer, tiny)
    groups = [drawn[i : i + GROUP] for i in range(0, len(drawn), GROUP)]
    best = [max(group, key=lambda rollout: rollout.reward) for group in groups]
    model = policy(tiny)
    logps = torch.cat([target_logps(model, rollout.tokens) for rollout in best])
    (-logps.mean()).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert_same_step(our_step(trainer, monkeypatch), (float(-logps.detach().mean()), expected))
