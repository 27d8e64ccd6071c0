"""A trial that pauses at each rung and is promoted later ends bit for bit like an uninterrupted one."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.algorithms import Algorithm, Dpo, Grpo, Sft
from luthier.design import Architecture, Design, Optimiser, Schedule, Stage
from luthier.task import DataKind, JudgeSpec, StringCheck
from luthier.trial import RUNG_PAIRS, RUNG_ROWS, RUNGS, TRAIN_LOSS, rung_name
from luthier.updates import AdaLora, Full, Lora, Update
from luthier.worker_protocol import (
    Assignment,
    CheckpointSaved,
    Directive,
    Finished,
    Heartbeat,
    Judged,
    Keep,
    RungReached,
    RungVerdict,
)
from tests import data_samples
from tests.covering import params
from tests.playing import HAS_D
from workers.agent import Agent
from workers.best_moment import PATIENCE
from workers.cache import Base
from workers.evaluate.judge import judge
from workers.service_client import ServiceClient
from workers.trial_watch import rung_subset

Curve = dict[tuple[int, int, str], float]
GRADED = StringCheck(operation="like", reference="{{item.completion}}")


class Service(ServiceClient):
    """A service of one trial, in memory and in a folder of blobs. It lets the trial pause at the goal that it has."""

    def __init__(self, folder: Path, assignment: Assignment) -> None:
        super().__init__("http://localhost", folder)
        self.assignment = assignment
        self.curve: Curve = {}
        self.rungs: list[RungReached] = []
        self.finished: list[Finished] = []
        self.log: list[str] = []

    def put(self, rows: Sequence[dict[str, Any]]) -> str:
        return self._keep("".join(json.dumps(row) + "\n" for row in rows).encode())

    def _keep(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        (self.cache / digest).write_bytes(content)
        return digest

    def put_blob(self, file: Path) -> str:
        return self._keep(file.read_bytes())

    def get_blob(self, digest: str) -> Path:
        return self.fetch(digest, self.cache / f"{digest}.copy")

    def fetch(self, digest: str, target: Path) -> Path:
        return Path(shutil.copy(self.cache / digest, target))

    def heartbeat(self, trial_id: str, heartbeat: Heartbeat) -> Directive:
        self._draw(heartbeat.points)
        self.log += [line.text for line in heartbeat.lines]
        return Directive.model_validate({"action": "continue", "reason": None, "expires_at": "2030-01-01T00:00:00Z"})

    def _draw(self, points: Sequence[Any]) -> None:
        for point in points:
            at = (point.stage, point.step, point.name)
            assert at not in self.curve, "no step is taken twice"
            self.curve[at] = point.value

    def checkpoint(self, trial_id: str, saved: CheckpointSaved) -> None:
        self.assignment = self.assignment.model_copy(update={"checkpoint": saved.manifest})

    def rung(self, trial_id: str, reached: RungReached) -> RungVerdict:
        self.rungs.append(reached)
        goal = self.assignment.goal
        return RungVerdict(action="continue" if goal is None or reached.rung < goal else "pause", goal=goal)

    def judged(self, trial_id: str, judged: Judged) -> Keep:
        return Keep(keep=True, test=True)

    def finish(self, trial_id: str, finished: Finished) -> None:
        self._draw(finished.points)
        self.log += [line.text for line in finished.lines]
        self.finished.append(finished)

    def work(self) -> Finished:
        """One lease, by a worker that has just been drawing other random numbers."""
        torch.randn(5)
        agent = Agent(self, "worker", torch.device("cpu"), 1)
        agent._work(self.assignment, 60.0, 1e9)
        return self.finished[-1]


@dataclass(frozen=True, kw_only=True)
class Plan:
    stages: tuple[Stage, ...]
    kind: DataKind = DataKind.PAIRS
    graded: bool = False
    rows: int = 36
    other_answers: bool = False  # the held-out rows have each other's answers, so what is learnt by heart is wrong


def stage(
    algorithm: Algorithm, update: Update, *, epochs: float = 1, schedule: Schedule = "cosine", rate: float = 2e-3
) -> Stage:
    recipe = Optimiser(
        learning_rate=rate, batch_size=2, epochs=epochs, warmup=0.1, weight_decay=0.01, schedule=schedule
    )
    return Stage(algorithm=algorithm, update=update, optimiser=recipe)


PLANS = {
    "sft full, averaged": Plan(stages=(stage(Sft(), Full(), schedule="constant"),)),
    "sft full": Plan(stages=(stage(Sft(), Full()),)),
    "sft lora": Plan(stages=(stage(Sft(), Lora(rank=2)),)),
    "sft adalora": Plan(stages=(stage(Sft(), AdaLora(rank=2)),)),
    "sft lora, graded": Plan(stages=(stage(Sft(), Lora(rank=2)),), graded=True),
    "grpo lora": Plan(stages=(stage(Grpo(group=2), Lora(rank=2)),), graded=True, rows=18),
    "grpo full": Plan(stages=(stage(Grpo(group=2, beta=0.1), Full()),), graded=True, rows=18),
    "sft+dpo": Plan(
        stages=(stage(Sft(), Lora(rank=2), epochs=0.5), stage(Dpo(), Full())), kind=DataKind.PREFERENCE, rows=24
    ),
    "sft+dpo, the rung at the end of a stage": Plan(
        stages=(stage(Sft(), Full(), epochs=0.5), stage(Dpo(), Lora(rank=2))), kind=DataKind.PREFERENCE, rows=18
    ),
}


def service(plan: Plan, folder: Path, tiny: Base, goal: int | None) -> Service:
    samples = data_samples.pairs if plan.kind is DataKind.PAIRS else data_samples.preference
    rows = samples(plan.rows + 20)
    if plan.other_answers:
        held_out_rows = rows[-20:]
        rows[-20:] = [
            row | {"completion": other["completion"]}
            for row, other in zip(held_out_rows, held_out_rows[1:] + held_out_rows[:1], strict=True)
        ]
    folder.mkdir()
    assignment = Assignment(
        trial_id="trial-abc",
        job_id="ftjob-abc",
        number=2,
        owner="worker",
        fence=1,
        seed=3,
        design=Design(architecture=Architecture(base=tiny.entry.name), stages=plan.stages),
        base=tiny.entry,
        train="",
        judge=JudgeSpec(
            kind=plan.kind,
            validation="",
            test="",
            objective="reward" if plan.graded or plan.kind is DataKind.PREFERENCE else "perplexity",
            grader=HAS_D if plan.graded else None,
            max_new_tokens=4,
        ),
        checkpoint=None,
        goal=goal,
        first_rung=4,
        device_seconds=0,
    )
    ctx = Service(folder, assignment)
    held_out = {"validation": ctx.put(rows[-20:-10]), "test": ctx.put(rows[-10:])}
    spec = assignment.judge.model_copy(update=held_out)
    ctx.assignment = assignment.model_copy(update={"train": ctx.put(rows[:-20]), "judge": spec})
    return ctx


def weights(finished: Finished) -> dict[str, str]:
    files = {f"{one.kind}/{path}": digest for one in finished.artifacts for path, digest in one.files.items()}
    return {path: digest for path, digest in files.items() if path.endswith(".safetensors")}


def proves(name: str) -> set[str]:
    """What an interrupted plan proves: an algorithm after another one, or its schedule, or that rewards resume."""
    plan = PLANS[name]
    kinds = "+".join(stage.algorithm.kind for stage in plan.stages)
    merged = "the last update is merged" if len(plan.stages) > 1 and plan.stages[0].update.kind == "full" else ""
    return {kinds, f"graded {plan.graded}", *(stage.optimiser.schedule for stage in plan.stages), merged}


@pytest.mark.parametrize("name", params(PLANS, proves))
def test_a_promoted_trial_is_an_uninterrupted_one(name: str, tiny: Base, tmp_path: Path) -> None:
    whole = service(PLANS[name], tmp_path / "whole", tiny, goal=None)
    unbroken = whole.work()
    assert unbroken.outcome == "complete", unbroken.error

    pausing = service(PLANS[name], tmp_path / "pausing", tiny, goal=0)
    for fence, goal in enumerate((0, 1, None), 1):
        pausing.assignment = pausing.assignment.model_copy(update={"goal": goal, "fence": fence})
        ended = pausing.work()
        assert ended.outcome == ("complete" if goal is None else "waiting"), ended.error
        assert ended.trained_tokens > 0
        assert ended.usage is not None
        assert ended.usage.steps > 0

    assert [reached.rung for reached in pausing.rungs] == list(range(len(pausing.rungs)))
    averaged = pausing.assignment.design.self_ending
    assert len(pausing.rungs) == 2 + averaged, "a training without a fixed length reports the rung of its end, too"
    assert [dict(reached) | {"fence": 0} for reached in pausing.rungs] == [
        dict(reached) | {"fence": 0} for reached in whole.rungs
    ]
    assert pausing.curve == whole.curve
    same = ("metrics", "test_metrics", "trained_tokens", "samples")
    assert [getattr(ended, name) for name in same] == [getattr(unbroken, name) for name in same]
    assert weights(ended) == weights(unbroken) != {}
    assert len(ended.samples) == 3
    names = [rung_name(pausing.assignment.design, rung) for rung in (0, 1)]
    assert [name for line in whole.log for name in names if f"At {name}" in line] == names
    assert [name for line in pausing.log for name in names if f"aused at {name}" in line] == names
    assert sum("esumes from the checkpoint" in line for line in pausing.log) == 2


@pytest.mark.parametrize("goal", [pytest.param(None, marks=pytest.mark.slow), 0])
def test_a_constant_rate_ends_past_its_best_moment_whose_weights_count(
    goal: int | None, tiny: Base, tmp_path: Path
) -> None:
    overfitting = stage(Sft(), Lora(rank=2), epochs=30, schedule="constant", rate=1e-2)
    plan = Plan(stages=(overfitting,), other_answers=True)
    ctx = service(plan, tmp_path / "one", tiny, goal=goal)
    ended = ctx.work()
    if goal is not None:
        assert ended.outcome == "waiting"
        ctx.assignment = ctx.assignment.model_copy(update={"goal": None, "fence": 2})
        ended = ctx.work()
    assert ended.outcome == "complete", ended.error
    losses = {step: loss for (_, step, name), loss in ctx.curve.items() if name == "valid_loss"}
    last = max(step for _, step, name in ctx.curve if name == TRAIN_LOSS)
    best = min(losses, key=lambda step: losses[step])
    assert 1 < best * PATIENCE["perplexity"] <= last < 30 * 18
    assert last == max(losses)
    assert ended.metrics is not None
    assert ended.metrics.perplexity == pytest.approx(math.exp(losses[best]), rel=1e-6)
    read = 2 * last
    rungs = [reached.rung for reached in ctx.rungs]
    assert rungs == list(range(len(rungs)))
    assert 4 * 3 ** (rungs[-1] - 1) < read <= 4 * 3 ** rungs[-1], "the last is the one that the end reaches"
    assert ctx.rungs[-1].metrics.perplexity == pytest.approx(math.exp(losses[best]))
    [record] = [one.files["luthier.json"] for one in ended.artifacts if one.kind == "merged"]
    exported = Design.model_validate(json.loads(ctx.get_blob(record).read_text())["design"])
    assert exported.stages[0].optimiser.epochs == pytest.approx(best * 2 / 36)
    shorter = plan.stages[0].model_copy(update={"optimiser": exported.stages[0].optimiser})
    again = service(Plan(stages=(shorter,), other_answers=True), tmp_path / "again", tiny, goal=None).work()
    assert weights(again) == weights(ended) != {}


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        (Plan(stages=(stage(Sft(), Lora(rank=2), epochs=30, schedule="constant", rate=1e-2),), other_answers=True), 1),
        (
            Plan(
                stages=(
                    stage(Sft(), Lora(rank=2), schedule="constant"),
                    stage(Dpo(), Lora(rank=2), schedule="constant"),
                ),
                kind=DataKind.PREFERENCE,
            ),
            2,
        ),
    ],
    ids=["one stage", "paused in the first of two"],
)
def test_a_trial_that_resumes_when_the_budget_is_spent_takes_one_step_a_stage_and_ends_with_its_best_moment(
    plan: Plan, steps: int, tiny: Base, tmp_path: Path
) -> None:
    ctx = service(plan, tmp_path / "one", tiny, goal=1)
    assert ctx.work().outcome == "waiting"
    taken = [at for *at, name in ctx.curve if name == TRAIN_LOSS]
    ctx.assignment = ctx.assignment.model_copy(update={"goal": None, "fence": 2, "wrap_up_at": 0.0})
    ended = ctx.work()
    assert ended.outcome == "complete", ended.error
    assert len([at for *at, name in ctx.curve if name == TRAIN_LOSS]) == len(taken) + steps
    assert ended.lengths[-1].ended == "budget"
    assert weights(ended) != {}
    if len(plan.stages) == 1:
        assert ended.metrics is not None
        best = min(loss for (_, _, name), loss in ctx.curve.items() if name == "valid_loss")
        assert ended.metrics.perplexity == pytest.approx(math.exp(best), rel=1e-6)


def test_what_is_scored_at_a_rung_is_on_the_curves(tiny: Base, tmp_path: Path) -> None:
    ctx = service(PLANS["sft lora, graded"], tmp_path / "one", tiny, goal=None)
    ctx.work()
    for reached in ctx.rungs:
        assert reached.metrics.reward is not None
        assert ctx.curve[0, reached.step, "valid_reward"] == reached.metrics.reward
        loss = torch.tensor(ctx.curve[0, reached.step, "valid_loss"], dtype=torch.float64)
        assert float(loss.exp()) == pytest.approx(reached.metrics.perplexity)
    assert [reached.share for reached in ctx.rungs] == list(RUNGS)
    assert [reached.step for reached in ctx.rungs] == [2, 6], "of 18"


def test_scoring_at_rungs_does_not_move_the_training(tiny: Base, tmp_path: Path, monkeypatch: Any) -> None:
    scored = service(PLANS["grpo lora"], tmp_path / "scored", tiny, goal=None)
    unscored = service(PLANS["grpo lora"], tmp_path / "unscored", tiny, goal=None)
    one = scored.work()
    monkeypatch.setattr("workers.trial_watch.RUNGS", ())
    other = unscored.work()
    assert scored.rungs
    assert not unscored.rungs
    assert weights(one) == weights(other) != {}
    steps = {at: value for at, value in scored.curve.items() if not at[2].startswith("valid_")}
    assert steps == unscored.curve


def test_two_rungs_at_one_step_are_reported_together_and_it_pauses_once(tiny: Base, tmp_path: Path) -> None:
    plan = Plan(stages=(stage(Sft(), Lora(rank=2)),), rows=4)
    ctx = service(plan, tmp_path / "short", tiny, goal=0)
    assert ctx.work().outcome == "waiting"
    assert [(reached.rung, reached.step) for reached in ctx.rungs] == [(0, 1), (1, 1)]
    ctx.assignment = ctx.assignment.model_copy(update={"goal": None})
    assert ctx.work().outcome == "complete"
    assert len(ctx.rungs) == 2


def test_at_its_last_step_a_trial_is_judged_and_does_not_pause(tiny: Base, tmp_path: Path) -> None:
    ctx = service(Plan(stages=(stage(Sft(), Lora(rank=2)),), rows=2), tmp_path / "one step", tiny, goal=0)
    assert ctx.work().outcome == "complete"
    assert ctx.rungs == []


@pytest.mark.parametrize(("stages", "rows"), [((1, 2), 6), ((1, 8), 9), ((3, 6), 18), ((1, 1, 7), 9), ((1, 2), 9)])
def test_a_rung_at_the_border_of_two_stages_is_reported_once(
    stages: tuple[int, ...], rows: int, tiny: Base, tmp_path: Path
) -> None:
    """Shares of stages are sums of fractions, which do not always add up."""
    total = sum(stages)
    programme = tuple(stage(Sft(), Lora(rank=2), epochs=count / total) for count in stages)
    ctx = service(Plan(stages=programme, rows=rows), tmp_path / "border", tiny, goal=None)
    assert ctx.work().outcome == "complete"
    assert [reached.rung for reached in ctx.rungs] == [0, 1]


def test_both_labels_of_unpaired_data_are_scored_at_rungs() -> None:
    spec = JudgeSpec(kind=DataKind.UNPAIRED, validation="v", test="t", objective="reward")
    rows = [{"n": n, "label": n >= 100} for n in range(104)]
    chosen = rung_subset(rows, spec)
    assert (len(chosen), sum(row["label"] for row in chosen)) == (RUNG_ROWS, 4)
    even = rung_subset([{"n": n, "label": n % 4 == 0} for n in range(200)], spec)
    assert (len(even), sum(row["label"] for row in even)) == (RUNG_ROWS, RUNG_ROWS // 2)
    beyond = spec.model_copy(update={"max_rows": 101})
    assert sum(row["label"] for row in rung_subset(rows, beyond)) == 1, (
        "rows that the judge leaves out are left out here too"
    )


def test_of_preferences_more_rows_are_scored_at_rungs_because_each_says_little() -> None:
    spec = JudgeSpec(kind=DataKind.PREFERENCE, validation="v", test="t", objective="reward")
    rows = [{"n": n} for n in range(200)]
    assert rung_subset(rows, spec) == rows[:RUNG_PAIRS]
    assert rung_subset(rows, spec.model_copy(update={"max_rows": 40})) == rows[:40]
    assert rung_subset(rows, spec.model_copy(update={"kind": DataKind.PAIRS})) == rows[:RUNG_ROWS]


def test_at_rungs_the_judge_itself_scores_the_first_rows(tiny: Base, tmp_path: Path) -> None:
    spec = JudgeSpec(kind=DataKind.PAIRS, validation="v", test="t", objective="reward", grader=HAS_D)
    rows = data_samples.pairs(60)
    first = rung_subset(rows, spec)
    assert list(first) == rows[:RUNG_ROWS]
    whole = judge(tiny.model, tiny.tokenizer, spec.model_copy(update={"max_generations": 1}), first)
    assert (whole.rows, whole.reward_name) == (RUNG_ROWS, "string_check")
