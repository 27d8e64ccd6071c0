"""A search that looks like one, without training: scores that hang on the design, and curves that fall towards them."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from luthier.client import Client
from luthier.design import Design
from luthier.trial import RUNGS, Metrics, Point
from luthier.worker_protocol import Assignment, Heartbeat, RungReached, RungVerdict
from tests.integration.service_harness import FakeWorker, Service, serving

UPDATES = {"lora": 0.0, "dora": -0.01, "rslora": 0.01, "full": 0.06, "pissa": -0.02, "vera": 0.12, "ia3": 0.16}
STEPS = 60
POINTS_IN_A_BEAT = 20


def bits(design: Design, seed: int, share: float = 1.0) -> float:
    """Bits per byte after a share of the training: lower for a good learning rate and rank."""
    if not design.stages:
        return 2.412
    stage = design.stages[0]
    spread = random.Random(f"{design.digest()} {seed}").gauss(0, 0.006)
    off = math.log10(stage.optimiser.learning_rate * stage.optimiser.batch_size / 2e-3)
    rank = getattr(stage.update, "rank", 8)
    floor = 1.52 + 0.09 * min(4.0, off * off) + UPDATES.get(stage.update.kind, 0.08) - 0.012 * math.log2(rank)
    floor -= 0.03 * min(3.0, stage.optimiser.epochs)
    return floor + spread + (2.412 - floor) * math.exp(-5.5 * share)


def cost(design: Design) -> float:
    """Device-seconds of a step."""
    update = design.stages[0].update
    whole = 0.32 if update.kind == "full" else 0.15 + getattr(update, "rank", 0) / 800
    return whole * (0.7 + design.stages[0].optimiser.batch_size / 24) * (design.architecture.layers or 6) / 6


@dataclass
class StudyWorker(FakeWorker):
    """Takes a little while for each trial, and has room for any."""

    pause: float = 0.0
    memory_bytes: int = 2**36

    def measured(self, assignment: Assignment, share: float) -> Metrics:
        value = bits(assignment.design, assignment.seed, share)
        return Metrics(perplexity=2.0 ** (value * 3.1), bits_per_byte=value, tokens=4_200, rows=64)

    def work(self, assignment: Assignment) -> None:
        self.score = lambda given: self.measured(given, 1.0)
        self.seconds = assignment.device_seconds + 0.4  # for scoring
        super().work(assignment)

    def work_until_ended(self, client: Client, job_id: str) -> str:
        """Like that of its base, without asking all the time."""
        while True:
            if (assignment := self.lease()) is not None:
                self.work(assignment)
            elif (status := client.job(job_id).status).terminal:
                return status.value
            else:
                time.sleep(0.1)

    def heartbeat(self, assignment: Assignment, *, seconds: float | None = None, **values: float) -> dict[str, Any]:
        """Without the one point that a worker that trains nothing makes up."""
        return super().heartbeat(assignment, seconds=seconds)

    def reach(self, assignment: Assignment, rung: int) -> RungVerdict:
        self.train(assignment, RUNGS[rung - 1] if rung else 0.0, RUNGS[rung])
        report = RungReached(
            **self.claim(assignment),
            rung=rung,
            share=RUNGS[rung],
            stage=0,
            step=round(STEPS * RUNGS[rung]),
            metrics=self.measured(assignment, RUNGS[rung]),
        )
        return RungVerdict.model_validate(self.post(f"/v1/trials/{assignment.trial_id}/rung", report).json())

    def climb(self, assignment: Assignment) -> bool:
        goes_on = super().climb(assignment)
        if goes_on and assignment.design.stages:
            self.train(assignment, RUNGS[-1] if assignment.goal is not None else 0.0, 1.0)
        return goes_on

    def train(self, assignment: Assignment, start: float, end: float) -> None:
        """The loss from one share of the training to another, in a few heartbeats."""
        noise = random.Random(f"{assignment.trial_id} {start}")
        for step in range(round(STEPS * start) + 1, round(STEPS * end) + 1, POINTS_IN_A_BEAT):
            steps = range(step, min(step + POINTS_IN_A_BEAT, round(STEPS * end) + 1))
            now = datetime.now(UTC)
            points = tuple(
                Point(stage=0, step=at, name=name, value=value, at=now)
                for at in steps
                for name, value in self.values(assignment, at, noise).items()
            )
            self.seconds += len(steps) * cost(assignment.design)
            beat = Heartbeat(**self.claim(assignment), device_seconds=self.seconds, points=points)
            self.post(f"/v1/trials/{assignment.trial_id}/heartbeat", beat)
            time.sleep(self.pause)

    def values(self, assignment: Assignment, step: int, noise: random.Random) -> dict[str, float]:
        value = bits(assignment.design, assignment.seed, step / STEPS)
        found = {"train_loss": value * 1.35 + noise.gauss(0, 0.05)}
        return found | ({"valid_loss": value * 1.3} if step % 10 == 0 else {})


def run(service: Service, job_id: str, workers: int = 2, pause: float = 0.0) -> None:
    """Work on a job until it has ended."""

    def work(name: str) -> None:
        with Client(service.url) as client:
            worker = StudyWorker(client._http, name=name, pause=pause)
            worker.register()
            worker.work_until_ended(client, job_id)

    threads = [threading.Thread(target=work, args=(f"bench-{number}",)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def studied(home: Path, **search: int) -> Iterator[tuple[Service, str]]:
    """A service with one job that has ended."""
    with serving(home, tick_seconds=0.2) as service:
        service.add_model()
        job_id = service.submit(search=search or {"trials": 24}, suffix="support")
        run(service, job_id)
        yield service, job_id
