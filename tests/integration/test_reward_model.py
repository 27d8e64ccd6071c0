"""RLHF: a reward model learns from preference pairs, then online RL trains the policy on its scores."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from luthier.algorithms import Algorithm, Grpo, RewardModel, Rloo, Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.errors import TrialFailed
from luthier.models.base_model import BaseModelEntry
from luthier.task import DataKind, JudgeSpec
from luthier.trial import Metrics
from luthier.updates import Full, Lora, Update
from tests import data_samples
from tests.integration.test_export import assignment_of
from tests.reproducing import Libraries
from tests.textbook import largest_difference
from workers.cache import Base
from workers.evaluate.judge import judge
from workers.export.artifacts import export
from workers.export.model_card import card
from workers.train import checkpoint, updates
from workers.train.algorithms import Context, Example, objective
from workers.train.checkpoint import Checkpoint
from workers.train.data.padding_free import lay_out
from workers.train.data.tokenize import Renderer
from workers.train.forward import last_hidden
from workers.train.loop import Progress, Trained, train
from workers.train.reward_model import HEAD, Scorer, pair_accuracy
from workers.train.rollouts.play import play, world_of
from workers.train.stage_trainer import StageTrainer

SPEC = JudgeSpec(
    kind=DataKind.PREFERENCE, validation="v", test="t", objective="reward", max_tokens=128, max_new_tokens=10
)
ROWS = data_samples.preference(24)
TRAIN, HELD_OUT = ROWS[:16], ROWS[16:]


def render_of(tiny: Base) -> Renderer:
    return Renderer(tiny.tokenizer, window=SPEC.window, max_tokens=SPEC.max_tokens)


def stage(algorithm: Algorithm, update: Update, *, epochs: float, rate: float = 3e-3) -> Stage:
    recipe = Optimiser(learning_rate=rate, batch_size=4, epochs=epochs)
    return Stage(algorithm=algorithm, update=update, optimiser=recipe)


def design(*stages: Stage) -> Design:
    return Design(architecture=Architecture(base="tiny"), stages=stages)


class Broken(Exception):
    """The worker is gone."""


@dataclass
class Witness:
    """Remembers what is reported; at `breaking_at` (stage, step) saves a checkpoint and breaks off."""

    folder: Path | None = None
    breaking_at: tuple[int, int] | None = None
    curve: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)
    shares: list[float] = field(default_factory=list)

    def after_step(self, progress: Progress) -> None:
        at = (progress.position.stage, progress.position.step)
        assert (progress.scorer is not None) == ("reward_accuracy" in progress.report.values)
        self.curve[at] = progress.report.values
        self.shares.append(progress.share)
        if at == self.breaking_at and self.folder is not None:
            checkpoint.save(progress.checkpoint(), self.folder)
            raise Broken


def run(tiny: Base, planned: Design, witness: Witness, resume: Checkpoint | None = None) -> Trained:
    render = render_of(tiny)
    world = world_of(SPEC, render)

    def examples(planned: Stage) -> list[Example]:
        learn = objective(planned.algorithm, Context(world=world))
        return [example for row in TRAIN for example in learn.examples(row, DataKind.PREFERENCE, render)]

    return train(copy.deepcopy(tiny.model), planned, examples, seed=1, watch=witness, world=world, resume=resume)


def trainer(tiny: Base, update: Update, *, epochs: float) -> StageTrainer:
    learn, render = objective(RewardModel()), render_of(tiny)
    return StageTrainer(
        applied=updates.apply(copy.deepcopy(tiny.model), update, seed=1),
        objective=learn,
        examples=[e for row in TRAIN for e in learn.examples(row, DataKind.PREFERENCE, render)],
        optimiser=stage(
            RewardModel(), update, epochs=epochs, rate=3e-4 if isinstance(update, Full) else 3e-3
        ).optimiser,
        seed=1,
    )


def scorer_of(trained: StageTrainer) -> Scorer:
    return Scorer(model=trained.model, head_1D=trained.head[HEAD].detach())


@torch.no_grad()
def test_the_last_hidden_state_of_each_unpadded_sequence_is_that_of_a_plain_forward(tiny: Base) -> None:
    render = render_of(tiny)
    sequences = [render.pair(row["prompt"], row["chosen"]) for row in ROWS[:5]]
    together_SD = last_hidden(tiny.model, lay_out(sequences, tiny.model.device))
    for found_D, tokens in zip(together_SD, sequences, strict=True):
        states = tiny.model(torch.tensor([tokens.ids]), output_hidden_states=True).hidden_states
        assert largest_difference(found_D, states[-1][0, -1]) < 1e-4


@pytest.mark.parametrize("update", [Full(), Lora(rank=4)], ids=lambda update: update.kind)
def test_a_reward_model_learns_which_held_out_answer_was_chosen(update: Update, tiny: Base) -> None:
    trained = trainer(tiny, update, epochs=3)
    # the other way round, the start is as good as the end is bad: whatever is drawn, one of the two can only be learnt
    before = pair_accuracy(scorer_of(trained), render_of(tiny), HELD_OUT)
    head = trained.head[HEAD].detach().clone()
    if before > 0.5:
        with torch.no_grad():
            trained.head[HEAD].neg_()
        before = pair_accuracy(scorer_of(trained), render_of(tiny), HELD_OUT)
    losses = []
    while not trained.done:
        losses.append(trained.advance().values["train_loss"])
    assert before <= 0.5
    assert pair_accuracy(scorer_of(trained), render_of(tiny), HELD_OUT) > 0.9
    assert mean(losses[-3:]) < 0.6 * mean(losses[:3])
    assert not torch.equal(trained.head[HEAD].detach().abs(), head.abs())


def test_the_head_is_drawn_by_the_seed_at_the_width_that_the_model_is_drawn_with(tiny: Base) -> None:
    one, same = trainer(tiny, Full(), epochs=1), trainer(tiny, Full(), epochs=1)
    drawn = objective(RewardModel()).parameters(tiny.model, 2)[HEAD]
    assert torch.equal(one.head[HEAD], same.head[HEAD])
    assert not torch.equal(one.head[HEAD], drawn)
    assert float(drawn.detach().std()) == pytest.approx(tiny.model.config.initializer_range, rel=0.2)


PLAYERS = [pytest.param(Rloo(group=4, beta=0.01), marks=pytest.mark.slow), Grpo(group=4)]


@pytest.mark.parametrize("player", PLAYERS, ids=lambda player: player.kind)
def test_rollouts_come_to_score_higher_under_the_reward_model(player: Algorithm, tiny: Base) -> None:
    witness = Witness()
    planned = design(stage(RewardModel(), Lora(rank=4), epochs=3), stage(player, Lora(rank=4), epochs=5))
    trained = run(tiny, planned, witness)
    rewards = [values["reward"] for (number, _), values in witness.curve.items() if number == 1]
    assert mean(rewards[-4:]) > mean(rewards[:4]) + 0.4
    assert trained.whole_base, "the reward model is another model: the policy's adapter stands on the registered base"


def test_a_reward_models_stage_leaves_the_policy_where_it_was(tiny: Base) -> None:
    """Playing at a rate of next to nothing shows what the policy was when it began to play."""
    sft, idle = stage(Sft(), Lora(rank=2), epochs=1), stage(Rloo(group=2), Lora(rank=2), epochs=0.25, rate=1e-30)
    alone = run(tiny, design(sft), Witness()).applied.merge().state_dict()
    after = run(tiny, design(sft, stage(RewardModel(), Lora(rank=2), epochs=1), idle), Witness()).applied.merge()
    assert [name for name, tensor in after.state_dict().items() if not torch.equal(tensor, alone[name])] == []


RECIPES = {
    "reward_model+rloo on one adapter each": design(
        stage(RewardModel(), Lora(rank=2), epochs=0.75), stage(Rloo(group=2), Lora(rank=2), epochs=0.5)
    ),
    "sft+reward_model+rloo on adapters": design(
        stage(Sft(), Lora(rank=2), epochs=0.5),
        stage(RewardModel(), Lora(rank=2), epochs=0.75),
        stage(Rloo(group=2), Lora(rank=2), epochs=0.5),
    ),
    "sft+reward_model+grpo on all weights": design(
        stage(Sft(), Full(), epochs=0.5, rate=3e-4),
        stage(RewardModel(), Full(), epochs=0.75, rate=3e-4),
        stage(Grpo(group=2, beta=0.1), Full(), epochs=0.5, rate=3e-5),
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_trial_resumes_exactly_amid_its_reward_model_and_amid_playing_for_it(
    name: str, tiny: Base, tmp_path: Path
) -> None:
    planned = RECIPES[name]
    rewarding = [s.algorithm.kind for s in planned.stages].index("reward_model")
    unbroken, whole = Witness(), Witness(tmp_path)
    expected = run(tiny, planned, unbroken)
    resume = None
    for whole.breaking_at in [(rewarding, 2), (rewarding, 3), (rewarding + 1, 1)]:
        with pytest.raises(Broken):
            run(tiny, planned, whole, resume)
        resume = checkpoint.load(tmp_path)
        torch.randn(5)  # another process has drawn other random numbers
    whole.breaking_at = None
    found = run(tiny, planned, whole, resume)
    assert whole.curve == unbroken.curve
    assert whole.shares == unbroken.shares
    assert unbroken.shares[-1] == pytest.approx(1.0)
    assert expected.scorer is not None
    assert found.scorer is not None
    ours, theirs = found.scorer.tensors(), expected.scorer.tensors()
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    merged, other = found.applied.merge().state_dict(), expected.applied.merge().state_dict()
    assert [key for key in merged if not torch.equal(merged[key], other[key])] == []


def test_plain_transformers_loads_the_reward_model_and_gives_its_scores(tiny: Base, tmp_path: Path) -> None:
    trained = trainer(tiny, Lora(rank=4), epochs=1)
    while not trained.done:
        trained.advance()
    scorer = Scorer(model=trained.applied.merge(), head_1D=trained.head[HEAD].detach())
    scorer.save(tmp_path, tiny.tokenizer)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    render = render_of(tiny)
    for row in HELD_OUT[:3]:
        tokens = render.pair(row["prompt"], row["chosen"])
        [score] = scorer([tokens])
        assert classifier(torch.tensor([tokens.ids])).logits.item() == pytest.approx(score, abs=1e-4)


def test_online_rl_on_preferences_without_a_reward_model_is_refused(tiny: Base) -> None:
    world = world_of(SPEC, render_of(tiny))
    assert world is not None
    with pytest.raises(TrialFailed, match="`reward_model` stage"):
        play(tiny.model, world, TRAIN[:1])


@pytest.mark.xdist_group("export")
@pytest.mark.parametrize("name", ["reward_model+rloo on one adapter each", "sft+reward_model+grpo on all weights"])
def test_the_script_trains_the_exported_reward_model_and_the_policy_again(
    name: str, tiny: Base, libraries: Libraries, tmp_path: Path
) -> None:
    planned = RECIPES[name]
    assignment = assignment_of(planned, DataKind.PREFERENCE, tiny.entry).model_copy(update={"judge": SPEC, "seed": 1})
    trained = run(tiny, planned, Witness())
    merged = trained.applied.merge()
    metrics = judge(merged, tiny.tokenizer, SPEC, HELD_OUT)
    export(
        tmp_path,
        model=merged,
        tokenizer=tiny.tokenizer,
        adapter=None,
        scorer=trained.scorer,
        assignment=assignment,
        metrics=metrics,
        test_metrics=metrics,
        train_rows=TRAIN,
        validation_rows=HELD_OUT,
    )
    script = tmp_path / "merged" / "reproduce" / "reproduce.py"
    for check in (["format", "--diff"], ["check", "--select=E,F,I,N,W", "--ignore=E501"]):
        command = [sys.executable, "-m", "ruff", *check, "--isolated", "--no-cache", "--line-length=120", str(script)]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout
    done = libraries.run(script, tmp_path, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"reward model's margin (\S+) \(exported (\S+)\)", done.stdout)
    assert found is not None
    assert float(found[1]) == pytest.approx(float(found[2]), rel=5e-3)


def test_the_card_has_the_accuracy_of_the_reward_model(tiny: Base, tiny_entry: BaseModelEntry) -> None:
    planned = design(stage(RewardModel(), Lora(rank=2), epochs=1), stage(Rloo(group=2), Lora(rank=2), epochs=1))
    metrics = Metrics(perplexity=2, bits_per_byte=1, reward=0.5, reward_name="preference_accuracy", tokens=1, rows=1)
    page = card(
        "merged",
        model=tiny.model,
        tokenizer=tiny.tokenizer,
        assignment=assignment_of(planned, DataKind.PREFERENCE, tiny_entry),
        metrics=metrics,
        test_metrics=metrics,
        rows=16,
        trained=16,
        stage_scores=({"valid_reward_accuracy": 0.75},),
    )
    assert re.search(r"After stage 1.* reward accuracy 0\.75\.\n", page)
    assert "- **Learning algorithm**: `reward_model`, " in page
    assert "- **Learning algorithm**: `rloo`, " in page
