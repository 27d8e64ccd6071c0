"""Costs: devices are calibrated by finished trials; designs that cannot run are refused; the work left is estimated."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final

from luthier.dataset import Profile
from luthier.design import Design
from luthier.errors import unknown_base_model
from luthier.models.base_model import BaseModelEntry, ModelFacts
from luthier.store import Connection, files, jobs, models, trials, workers
from luthier.store.rows import JobRecord, MeasuredTrial, TrialRecord, WorkerRecord
from luthier.trial import TrialState
from luthier.worker_protocol import Device
from search.cost.estimate import Calibration, Estimate, Seen, calibrate, estimate, token_ratio
from search.cost.workload import workload
from search.methods.amounts import Workload
from search.policy.scheduler import WhyInfeasible
from search.space.axes import FOUR_BIT
from service.context import Context
from service.jobs import budget

_NUMBERS: Final = re.compile(r"(-\d+)+$")
LATEST: Final = 200  # trials that a calibration uses
HEADROOM: Final = 0.93  # share of a device's memory that a trial may use: allocators waste some, estimates err


@dataclass(frozen=True, kw_only=True)
class Room:
    """A device, and how much of its memory one trial may use."""

    device: Device
    memory_bytes: float


class Ledger:
    """What finished trials cost, as of now. Reads from the store lazily, and each thing once."""

    def __init__(self, ctx: Context, c: Connection) -> None:
        self._ctx = ctx
        self._c = c
        self._entries = {entry.name: entry for entry in models.list_(c)}
        self._ratios: dict[tuple[str, str], float] = {}
        self._calibrations: dict[tuple[str, str], Calibration] = {}

    def entry(self, name: str) -> BaseModelEntry:
        """Return a registered base model. Raises NotFound."""
        if name not in self._entries:
            raise unknown_base_model(name, self._entries)
        return self._entries[name]

    def workload(self, job: JobRecord, base: str) -> Workload:
        """Return the work of one trial of the job, with the token counts that past trials on its file measured."""
        return self._workload(job, self.ratio(job.training_file, base))

    def ratio(self, file_id: str, base: str) -> float:
        """Return how many tokens of a base model's tokenizer one token of the file's profile is."""
        key = file_id, base
        if key not in self._ratios:
            same = [s for at, s in self._seen if self._jobs[at.job_id].training_file == file_id]
            self._ratios[key] = token_ratio(s for s in same if s.design.architecture.base == base)
        return self._ratios[key]

    def calibration(self, device: Device) -> Calibration:
        """Return the calibration by trials that finished on devices of the same kind and name."""
        key = device.kind, device.name
        if key not in self._calibrations:
            seen = [s for at, s in self._seen if (at.device.kind, at.device.name) == key]
            self._calibrations[key] = calibrate(device.kind, [self._rescaled(s) for s in seen])
        return self._calibrations[key]

    @cached_property
    def _jobs(self) -> dict[str, JobRecord]:
        return {job_id: jobs.get(self._c, job_id) for job_id in {found.job_id for found in self._measured}}

    @cached_property
    def _measured(self) -> list[MeasuredTrial]:
        found = trials.measured(self._c, LATEST)
        return [each for each in found if each.design.architecture.base in self._entries]

    @cached_property
    def _seen(self) -> list[tuple[MeasuredTrial, Seen]]:
        return [
            (
                each,
                Seen(
                    design=each.design,
                    facts=self._entries[each.design.architecture.base].facts,
                    job=self._workload(self._jobs[each.job_id], 1.0),
                    usage=each.usage,
                    seconds=each.device_seconds if each.fence == 1 and each.state is TrialState.COMPLETE else None,
                    ended=each.state is TrialState.COMPLETE,
                ),
            )
            for each in self._measured
        ]

    def _rescaled(self, seen: Seen) -> Seen:
        at = next(at for at, other in self._seen if other is seen)
        job = self._jobs[at.job_id]
        again = self._workload(job, self.ratio(job.training_file, seen.design.architecture.base))
        return seen.model_copy(update={"job": again})

    def _workload(self, job: JobRecord, ratio: float) -> Workload:
        profile = Profile.model_validate(files.get(self._c, job.training_file).profile)
        count = self._ctx.count_rows
        return workload(
            profile,
            job.judge,
            rows=count(job.train),
            validation=count(job.judge.validation),
            test=count(job.judge.test),
            ratio=ratio,
            teachers={name: entry.facts for name, entry in self._entries.items()},
        )


def sharing(worker: WorkerRecord, live_workers: Sequence[WorkerRecord]) -> int:
    """Return how many of the workers share this one's memory. Workers are named after their host by default."""
    if worker.device.kind == "cuda":
        return 1
    host = _NUMBERS.sub("", worker.name)
    return sum(each.device == worker.device and _NUMBERS.sub("", each.name) == host for each in live_workers)


def room(device: Device, workers_on_it: int = 1) -> Room:
    """Return the share of the device that one of its workers may use."""
    return Room(device=device, memory_bytes=HEADROOM * device.memory_bytes / workers_on_it)


def refusal(ctx: Context, job: JobRecord, rows: Sequence[TrialRecord], now: datetime) -> WhyInfeasible:
    """Return a function that says why a design cannot run on any live worker within the remaining budget.

    It returns None for a design that can, and where no worker is live. Costs are read at its first call.
    """
    left = budget.remaining(job, rows, 1, now)
    estimates: Callable[[Design], list[tuple[Room, Estimate]]] | None = None

    def why(design: Design) -> str | None:
        nonlocal estimates
        estimates = estimates or _estimates(ctx, job, now, left)
        found = estimates(design)
        reasons = [f"on {at.device.name} {each.why}" for at, each in found if each.why is not None]
        return "; ".join(reasons) if found and len(reasons) == len(found) else None

    return why


def _estimates(
    ctx: Context, job: JobRecord, now: datetime, left: float | None
) -> Callable[[Design], list[tuple[Room, Estimate]]]:
    with ctx.database.read() as c:
        ledger = Ledger(ctx, c)
        live_workers = workers.live(c, now, ctx.settings.lease_seconds)
        # Each kind of device once.
        places = list(dict.fromkeys(room(one.device, sharing(one, live_workers)) for one in live_workers))
        prices = [ledger.calibration(place.device) for place in places]
        loads = {name: ledger.workload(job, name) for name in job.search.pin.model or ()}

        def estimates(design: Design) -> list[tuple[Room, Estimate]]:
            base = design.architecture.base
            facts = ledger.entry(base).facts
            return [
                (
                    place,
                    priced(facts, design, loads[base], price, place, limit=job.constraints.memory_bytes, seconds=left),
                )
                for place, price in zip(places, prices, strict=True)
            ]

        return estimates


def priced(
    facts: ModelFacts,
    design: Design,
    load: Workload,
    price: Calibration,
    place: Room,
    *,
    limit: int | None = None,
    seconds: float | None = None,
) -> Estimate:
    """Return the design's cost on this device, and whether it fits there and within `limit` in bytes.

    `seconds` limits only trainings of a fixed length: others end when the budget does.
    """
    seconds = None if design.self_ending else seconds
    most = place.memory_bytes if limit is None else min(place.memory_bytes, limit)
    found = estimate(facts, design, load, price, memory_bytes=most, seconds=seconds)
    four_bit = [stage.update.kind for stage in design.stages if stage.update.kind in FOUR_BIT]
    if four_bit and not place.device.four_bit:
        why = f"{four_bit[0]} loads the base model in 4 bits, which needs CUDA and the package bitsandbytes"
        return found.model_copy(update={"feasible": False, "why": why})
    return found


def work_left(
    ctx: Context, c: Connection, job: JobRecord, rows: Sequence[TrialRecord], now: datetime
) -> tuple[float, int] | None:
    """Return the device-seconds that a running job still needs, and how many workers share them.

    Return None while no trial has finished on such a device, or no worker is live.
    """
    live_workers = workers.live(c, now, ctx.settings.lease_seconds)
    if not live_workers or not rows:
        return None
    ledger = Ledger(ctx, c)
    price = ledger.calibration(live_workers[0].device)
    if not price.trials:
        return None
    trained = [row.design for row in rows if row.design.stages]
    if not trained:
        return None
    loads = {base: ledger.workload(job, base) for base in {design.architecture.base for design in trained}}
    seconds = [
        estimate(ledger.entry(base).facts, design, loads[base], price).seconds
        for design in trained
        for base in [design.architecture.base]
    ]
    return budget.trainings_left(job, rows) * sum(seconds) / len(seconds), len(live_workers)
