"""Online RL raises the reward: with every algorithm and every kind of weight update."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from luthier.algorithms import Algorithm, Grpo, Raft, Rloo, Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.errors import TrialFailed
from luthier.task import DataKind, JudgeSpec, StringCheck, TextSimilarity
from luthier.updates import Dora, Full, Lora, Pissa, TopLayers, Update
from tests import data_samples
from tests.conformance_updates import scores, tensors
from tests.playing import MENTIONS_I, prompts, world
from tests.textbook import largest_difference
from workers.cache import Base
from workers.evaluate.judge import judge
from workers.train import updates
from workers.train.algorithms import objective
from workers.train.loop import Progress, Trained, train
from workers.train.rollouts.play import World, play

PLAYS: list[tuple[Algorithm, Update, float]] = [
    (Grpo(group=8), Full(), 5e-4),
    (Grpo(group=8, beta=0.04), Pissa(rank=4), 3e-3),
    (Rloo(group=8), Lora(rank=4), 5e-3),
    (Rloo(group=8, beta=0.0), TopLayers(layers=2), 3e-3),
    (Raft(group=8), Dora(rank=4), 5e-3),
]
ROWS = 4


class Curve:
    """Looks on, and remembers what the steps said."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def after_step(self, progress: Progress) -> None:
        self.values.append(progress.report.values)


def trained(
    tiny: Base, algorithm: Algorithm, update: Update, rate: float, *, ctx: World | None, epochs: float = 12.0
) -> tuple[Trained, Curve]:
    recipe = Optimiser(learning_rate=rate, batch_size=ROWS, epochs=epochs)
    stage = Stage(algorithm=algorithm, update=update, optimiser=recipe)
    design = Design(architecture=Architecture(base="tiny"), stages=(stage,))
    examples, curve = prompts(objective(algorithm), tiny, ROWS), Curve()
    model = copy.deepcopy(tiny.model)
    return train(model, design, lambda _: examples, seed=7, watch=curve, world=ctx), curve


def mean_reward(model: torch.nn.Module, ctx: World) -> float:
    rollouts = play(model, ctx, data_samples.pairs(ROWS), attempts=24, seed=1)
    return sum(rollout.reward for rollout in rollouts) / len(rollouts)


@pytest.mark.parametrize(("algorithm", "update", "rate"), PLAYS, ids=lambda value: getattr(value, "kind", ""))
def test_the_reward_rises_and_what_moved_can_be_merged_and_kept(
    algorithm: Algorithm, update: Update, rate: float, tiny: Base, tmp_path: Path
) -> None:
    ctx = world(tiny, max_new_tokens=4)
    at_start = tensors(updates.apply(copy.deepcopy(tiny.model), update, 7).model)
    result, _ = trained(tiny, algorithm, update, rate, ctx=ctx)
    at_end, trainable, reached = (
        tensors(result.applied.model),
        set(result.applied.trainable()),
        scores(result.applied.model),
    )
    merged = result.applied.merge()
    before, after = mean_reward(tiny.model, ctx), mean_reward(merged, ctx)
    print(f"{algorithm.kind} {update.kind}: {before:.3f} → {after:.3f}")
    assert before < 0.35
    assert after > before + 0.2
    assert {name for name, tensor in at_start.items() if not torch.equal(tensor, at_end[name])} == trainable
    assert largest_difference(scores(merged), reached) < 1e-4
    merged.save_pretrained(tmp_path)
    assert torch.equal(scores(AutoModelForCausalLM.from_pretrained(tmp_path)), scores(merged))


def test_the_curves_have_rewards_and_lengths_of_rollouts(tiny: Base) -> None:
    _, curve = trained(tiny, Rloo(group=4), Full(), 1e-3, ctx=world(tiny, max_new_tokens=4), epochs=2)
    for values in curve.values:
        assert {"reward", "reward_std", "completion_length", "rollouts_kept", "kl", "train_loss"} <= values.keys()
        assert 0 <= values["reward"] <= 1
        assert 1 <= values["completion_length"] <= 4
        assert values["rollouts_kept"] in (0, 4 * ROWS)
    assert curve.values[0]["kl"] == 0.0
    assert curve.values[1]["kl"] != 0.0


@pytest.mark.parametrize(
    "algorithm", [Grpo(group=4), Grpo(group=4, beta=0.1), Rloo(group=4), Raft(group=4)], ids=lambda a: a.kind
)
def test_equal_rewards_change_no_parameters(algorithm: Algorithm, tiny: Base) -> None:
    never = world(tiny, grader=StringCheck(reference="never said"), max_new_tokens=2)
    result, curve = trained(tiny, algorithm, Full(), 1e-2, ctx=never, epochs=2)
    assert all(values["rollouts_kept"] == 0 for values in curve.values)
    at_start = tensors(tiny.model)
    assert all(torch.equal(tensor, at_start[name]) for name, tensor in tensors(result.applied.model).items())


def test_online_rl_needs_a_reward(tiny: Base) -> None:
    with pytest.raises(TrialFailed, match="grpo needs a reward"):
        trained(tiny, Grpo(), Full(), 1e-3, ctx=None)


def test_training_and_judge_use_the_same_rollouts(tiny: Base) -> None:
    """The judge's reward is that of greedy answers in the very world that training plays in."""
    rows, grader = data_samples.pairs(6), TextSimilarity()
    spec = JudgeSpec(kind=DataKind.PAIRS, validation="0", test="1", objective="reward", grader=grader, max_new_tokens=6)
    rollouts = play(tiny.model, world(tiny, grader=grader), rows)
    found = judge(tiny.model, tiny.tokenizer, spec, rows)
    assert found.reward == pytest.approx(sum(rollout.reward for rollout in rollouts) / len(rows))


def test_prompts_alone_are_judged_by_their_grader_and_their_own_likelihood(tiny: Base) -> None:
    rows = [{"prompt": row["prompt"], "tools": None} for row in data_samples.pairs(6)]
    grader = StringCheck(operation="like", reference="I")
    spec = JudgeSpec(
        kind=DataKind.PROMPTS, validation="0", test="1", objective="reward", grader=grader, max_new_tokens=6
    )
    found = judge(tiny.model, tiny.tokenizer, spec, rows)
    same = judge(tiny.model, tiny.tokenizer, spec.model_copy(update={"kind": DataKind.PAIRS}), data_samples.pairs(6))
    assert found.reward == same.reward
    text = [
        tiny.tokenizer.apply_chat_template([{"role": "user", "content": r["prompt"]}], tokenize=False) for r in rows
    ]
    assert found.tokens == sum(len(tiny.tokenizer(t, add_special_tokens=False)["input_ids"]) - 1 for t in text)


def test_sft_can_precede_online_rl(tiny: Base) -> None:
    """sft+grpo on one adapter: the second stage goes on where the first one ended."""
    recipe = Optimiser(learning_rate=3e-3, batch_size=ROWS, epochs=2)
    design = Design(
        architecture=Architecture(base="tiny"),
        stages=tuple(
            Stage(algorithm=a, update=Lora(rank=4), optimiser=recipe) for a in (Sft(), Grpo(group=4, beta=0.1))
        ),
    )
    curve, ctx = Curve(), world(tiny, grader=MENTIONS_I)

    def examples(stage: Stage) -> list:
        return prompts(objective(stage.algorithm), tiny, ROWS)

    train(copy.deepcopy(tiny.model), design, examples, seed=7, watch=curve, world=ctx)
    assert ["reward" in values for values in curve.values] == [False, False, True, True]
