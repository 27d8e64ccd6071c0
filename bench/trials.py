"""Trials for benchmarks: whole leases, through the code that workers run, in this process and without a service."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from luthier import dataset
from luthier.dataset import Profile
from luthier.design import Design
from luthier.models.base_model import BaseModelEntry, read_facts
from luthier.task import DataKind, Grader, JudgeSpec, Pin
from luthier.trial import Usage
from luthier.worker_protocol import (
    Assignment,
    CheckpointSaved,
    Directive,
    Heartbeat,
    Judged,
    Keep,
    RungReached,
    RungVerdict,
)
from search.policy.priors import baselines
from search.space.space import Space
from service.datasets.ingest import token_counter
from workers import cache, trial
from workers.lease import Lease
from workers.service_client import ServiceClient

MODELS: Final = Path(__file__).parents[1] / "tests" / "models"
LEASE_SECONDS: Final = 600.0
V = TypeVar("V", str, int, float)
Row = dict[str, Any]


def base(name: str) -> BaseModelEntry:
    """A tiny real model of the tests."""
    return BaseModelEntry(name=name, source=str(MODELS / name), facts=read_facts(MODELS / name))


class Draw:
    """Answers a space's questions: some as asked for, the others at random."""

    def __init__(self, seed: str, wanted: Mapping[str, str]) -> None:
        self._random = random.Random(seed)
        self._wanted = wanted

    def categorical(self, name: str, choices: Sequence[V]) -> V:
        wish = self._wanted.get(name.partition("[")[0])
        return next((choice for choice in choices if choice == wish), self._random.choice(choices))

    def log_uniform(self, name: str, low: float, high: float) -> float:
        return low + self._random.random() * (high - low)


@dataclass(frozen=True, kw_only=True)
class Task:
    """Rows to train on, rows to be judged by, and how."""

    name: str
    kind: DataKind
    train: tuple[Row, ...] = field(repr=False)
    held_out: tuple[Row, ...] = field(repr=False)
    model: str = "tiny-chat"
    grader: Grader | None = None
    max_new_tokens: int = 16

    @cached_property
    def entry(self) -> BaseModelEntry:
        return base(self.model)

    @cached_property
    def profile(self) -> Profile:
        """As the service would have it: of the rows that were uploaded, counted by the base model's tokenizer."""
        counter = token_counter([self.entry])
        assert counter is not None
        return dataset.profile(self.train, self.kind, count_tokens=counter.count, counted_by=counter.model)

    @cached_property
    def space(self) -> Space:
        return Space.for_job(
            self.kind,
            len(self.train),
            [self.entry],
            Pin(epochs=(1.0, 2.0)),
            length=self.profile.long_rows,
            rewarded=self.grader is not None,
        )

    def plain(self) -> Design:
        """What is tried before anything else."""
        return baselines(self.space)[1]

    def judge(self, validation: str, test: str) -> JudgeSpec:
        return JudgeSpec(
            kind=self.kind,
            validation=validation,
            test=test,
            objective="perplexity",
            grader=self.grader,
            window=128 if self.entry.facts.family == "encoder" else 512,
            max_tokens=512,
            max_new_tokens=self.max_new_tokens,
            family=self.entry.facts.family,
        )


class LocalService(ServiceClient):
    """A line to nobody: blobs lie in a folder, and every answer is that the trial may go on and is worth keeping."""

    def __init__(self, folder: Path) -> None:
        self.cache = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, rows: Sequence[Row]) -> str:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        digest = hashlib.sha256(content).hexdigest()
        (self.cache / digest).write_bytes(content)
        return digest

    def put_blob(self, file: Path) -> str:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        shutil.copyfile(file, self.cache / digest)
        return digest

    def get_blob(self, digest: str) -> Path:
        return self.cache / digest

    def heartbeat(self, trial_id: str, heartbeat: Heartbeat) -> Directive:
        return Directive(action="continue", expires_at=datetime.now(UTC) + timedelta(seconds=LEASE_SECONDS))

    def checkpoint(self, trial_id: str, saved: CheckpointSaved) -> None:
        pass

    def rung(self, trial_id: str, reached: RungReached) -> RungVerdict:
        return RungVerdict(action="continue")

    def judged(self, trial_id: str, judged: Judged) -> Keep:
        return Keep(keep=True, test=True)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a lease took, by the CPU's clock."""

    seconds: float
    usage: Usage

    @classmethod
    def of(cls, seconds: float, usage: Mapping[str, Any]) -> Run:
        return cls(seconds=seconds, usage=Usage.model_validate(usage))


def run(task: Task, design: Design, *, seed: int = 0) -> Run:
    """Train, judge and export a design. Base model and rows are in memory already, as between a job's trials."""
    with tempfile.TemporaryDirectory(prefix="luthier-bench-") as folder:
        service = LocalService(Path(folder))
        held_out = service.keep(task.held_out)
        judge = task.judge(held_out, held_out)
        assignment = Assignment(
            trial_id="trial-bench",
            job_id="ftjob-bench",
            number=2,
            owner="bench",
            fence=1,
            seed=seed,
            design=design,
            base=task.entry,
            train=service.keep(task.train),
            judge=judge,
            checkpoint=None,
            device_seconds=0.0,
        )
        for stage in design.stages:
            cache.examples(task.entry, judge, service.get_blob(assignment.train), stage.algorithm)
        began = time.process_time()
        with Lease(service, assignment, LEASE_SECONDS) as lease:
            lease.meter.clock = time.process_time
            finished = trial.run(service, lease, torch.device("cpu"), LEASE_SECONDS)
        assert finished.usage is not None, finished.error
        return Run(seconds=time.process_time() - began, usage=finished.usage)
