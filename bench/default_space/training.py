"""Train designs of a task with the code that workers run, in this process, from one score to the next.

A training runs in a thread of its own and waits at each score until the next one is asked for. So a search can pause a
trial at a rung and promote it later, as the service does, and only what it asks for is trained. Costs are CPU seconds.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import torch

from bench.default_space.tasks import TRAIN, Task, base, named, rows
from luthier.design import Design
from luthier.errors import LuthierError
from luthier.metrics import objective_value
from luthier.trial import StageLength, first_rung
from luthier.worker_protocol import Assignment, RungReached, RungVerdict
from search.policy.history import RungScore
from search.policy.ranking import rung_score
from workers import cache as warm
from workers.evaluate.judge import judge_rows, renderer
from workers.lease import Lease
from workers.meter import Meter
from workers.service_client import ServiceClient
from workers.train.architectures import build
from workers.train.loop import train
from workers.train.rollouts.play import world_of
from workers.trial_watch import TrialWatch

SEED: Final = 1
SPLITS: Final = ("train", "validation", "test")
WORST: Final = RungScore(float("inf"), (float("inf"), float("inf")))


class GivenUp(Exception):
    """Nobody will ask for the next score."""


class Training:
    """A design in training, as `bench.replay.Curve`: its scores at the rungs, and at last the one of all rows.

    moments   stage, step, validation loss and CPU seconds (training, judging) of each moment
    longest   CPU seconds after which the training ends with the result of its best moment
    error     why it failed; its last score is infinite then
    """

    def __init__(self, task: Task, design: Design, *, seed: int = SEED, longest: float = float("inf")) -> None:
        self.task, self.design, self.longest = task, design, longest
        self.meter = Meter(clock=time.thread_time)
        self.scores: list[RungScore] = []
        self.costs: list[float] = []
        self.moments: list[tuple[float, ...]] = []
        self.lengths: tuple[StageLength, ...] = ()
        self.ended, self.error = False, ""
        self.tokens, self.claim = 0, {"owner": "bench", "fence": 1}  # of a lease
        self.assignment = Assignment(
            trial_id="trial",
            job_id="job",
            number=2,
            **self.claim,
            seed=seed,
            design=design,
            base=base(),
            train="train",
            judge=task.judge("validation", "test"),
            checkpoint=None,
            first_rung=first_rung(design, TRAIN),
            device_seconds=0.0,
        )
        self._model: Any = None
        self._given_up = False
        self._next, self._scored = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def cost_at(self, at: int) -> float:
        self._reach(at)
        return self.costs[at]

    def score_at(self, at: int) -> RungScore:
        self._reach(at)
        return self.scores[at]

    def ends_at(self, at: int) -> bool:
        self._reach(at)
        return self.ended and at == len(self.scores) - 1

    @cache  # noqa: B019 - a benchmark keeps its trainings
    def test_score(self) -> float:
        """Return the objective on the test rows of a training that has ended; lower is better."""
        return float("inf") if self.error else self._judged("test")

    def give_up(self) -> None:
        """End the thread of a training that will not go on."""
        self._given_up = True
        self._next.release()

    def _reach(self, at: int) -> None:
        while len(self.scores) <= at:
            assert not self.ended, "there are no scores after the last one"
            if not self._thread.is_alive():
                self._thread.start()
            self._next.release()
            self._scored.acquire()

    def _run(self) -> None:
        torch.set_num_threads(1)
        self._next.acquire()
        try:
            self._train()
            self._add(RungScore(self._judged("validation"), (0.0, 0.0)), ended=True)
        except GivenUp:
            pass
        except LuthierError as error:
            self.error = error.message
            self._add(WORST, ended=True)

    def _train(self) -> None:
        calibration = warm.calibration(base(), self.assignment.judge, self.get_blob("train"))
        model: Any = build(warm.base(base()).model, self.design.architecture, calibration)
        if self.design.stages:
            with tempfile.TemporaryDirectory() as scratch:
                observed = cast("ServiceClient", self), cast("Lease", self)
                watch = TrialWatch(*observed, float("inf"), Path(scratch))
                world = world_of(self.assignment.judge, renderer(self._tokenizer, self.assignment.judge))
                seed = self.assignment.seed
                trained = train(model, self.design, watch.examples, seed=seed, watch=watch, world=world)
            self.lengths = tuple(trained.lengths)
            model = trained.judged()
        self._model = model

    def _add(self, score: RungScore, *, ended: bool) -> None:
        self.scores.append(score)
        self.costs.append(time.thread_time())
        self.ended = ended
        self._scored.release()

    @property
    def _tokenizer(self) -> Any:
        return warm.tokenizer(base(), self.assignment.judge)

    def _judged(self, split: str) -> float:
        metrics, _ = judge_rows(self._model, self._tokenizer, self.assignment.judge, warm.rows(self.get_blob(split)))
        return objective_value(metrics, self.task.objective)

    # What a trial's watch needs of the service and of its lease:

    @property
    def wrap_up(self) -> bool:
        return time.thread_time() > self.longest

    def get_blob(self, split: str) -> Path:
        return files(self.task.name) / f"{split}.jsonl"

    def record(self, stage: int, step: int, values: dict[str, float]) -> None:
        if (loss := values.get("valid_loss")) is not None:
            usage = self.meter.usage()
            self.moments.append((stage, step, loss, usage.train_seconds, usage.judge_seconds))

    def rung(self, trial_id: str, reached: RungReached) -> RungVerdict:
        self._add(rung_score(reached.metrics, self.task.objective), ended=False)
        self._next.acquire()
        if self._given_up:
            raise GivenUp
        return RungVerdict(action="continue", goal=None)

    def say(self, text: str) -> None:
        """Nobody reads this log."""

    def check(self) -> None:
        """Nothing interrupts the trial."""


@cache
def files(name: str) -> Path:
    """Return a folder with a task's splits as JSONL files."""
    folder = Path(tempfile.mkdtemp(prefix="luthier-default-space-"))
    for split, found in zip(SPLITS, rows(named(name)), strict=True):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")
    return folder
