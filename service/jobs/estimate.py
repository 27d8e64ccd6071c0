"""Estimate what a design, or a change to one, costs on a device. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psutil

from luthier.api_types import CostParts, DesignEstimate
from luthier.dataset import Profile, about_held_out
from luthier.design import Design
from luthier.errors import NotFound, UserError, unknown_base_model
from luthier.models.base_model import BaseModelEntry
from luthier.store import Connection, files, jobs, models, trials, workers
from luthier.store.rows import JobRecord, WorkerRecord
from luthier.task import JudgeSpec, Pin, TextSimilarity
from luthier.worker_protocol import Device
from search.cost.workload import workload
from search.methods.amounts import Workload
from search.policy.priors import baselines
from search.policy.ranking import best
from search.space import validate
from search.space.modify import changed, place
from search.space.space import Space
from service.context import Context
from service.jobs import costs, history, judge
from service.schemas.requests import DeviceChoice, EstimateDesign


@dataclass(frozen=True, kw_only=True)
class _Data:
    """What the designs would be trained on: a job's rows, or those of a file."""

    profile: Profile
    file_id: str
    rows: int
    rewarded: bool
    job: JobRecord | None

    def space(self, entries: Sequence[BaseModelEntry], pin: Pin) -> Space:
        examples = self.profile.examples(self.rows)
        length = self.profile.long_rows
        return Space.for_job(self.profile.kind, examples, entries, pin, length=length, rewarded=self.rewarded)


def answer(ctx: Context, c: Connection, body: EstimateDesign, now: datetime) -> DesignEstimate:
    """Return the estimate. Raises UserError or one of its subclasses, with the field at fault as `param`."""
    ledger = costs.Ledger(ctx, c)
    data = _data(ctx, c, body)
    entries = models.list_(c)
    start = _start(c, body, data, entries)
    room = _room(body, workers.live(c, now, ctx.settings.lease_seconds))

    def priced(design: Design) -> DesignEstimate:
        entry = ledger.entry(design.architecture.base)
        load = _workload(ledger, data, entry)
        limit = data.job.constraints.memory_bytes if data.job else None
        found = costs.priced(entry.facts, design, load, ledger.calibration(room.device), room, limit=limit)
        return DesignEstimate(
            design=design,
            summary=design.summary(),
            device=room.device.name,
            parts=CostParts(memory=found.memory_parts, seconds=found.seconds_parts),
            **found.model_dump(exclude={"memory_parts", "seconds_parts"}),
        )

    if not body.change:
        return priced(start)
    try:
        design = changed(start, body.change, lambda pin: data.space(entries, pin))
    except UserError as error:
        error.param = place(error)
        raise
    return priced(design).model_copy(update={"unchanged": priced(start)})


def rows_to_train(profile: Profile) -> int:
    """Return about how many rows of a file would be trained on, before it is split."""
    return max(1, profile.rows - 2 * about_held_out(profile.rows))


def _data(ctx: Context, c: Connection, body: EstimateDesign) -> _Data:
    if (body.job is None) == (body.dataset is None):
        raise UserError(
            "Name what to train on: either `dataset`, the id of an uploaded file, or `job`, the id of a job.",
            param="dataset",
        )
    if body.job is not None:
        job = jobs.get(c, body.job)
        return _Data(
            profile=Profile.model_validate(files.get(c, job.training_file).profile),
            file_id=job.training_file,
            rows=ctx.count_rows(job.train),
            rewarded=job.task.rewarded,
            job=job,
        )
    assert body.dataset is not None
    record = files.get(c, body.dataset)
    profile = Profile.model_validate(record.profile)
    return _Data(
        profile=profile,
        file_id=record.id,
        rows=rows_to_train(profile),
        rewarded=profile.kind in judge.GRADED,
        job=None,
    )


def _start(c: Connection, body: EstimateDesign, data: _Data, entries: Sequence[BaseModelEntry]) -> Design:
    """Return the design to estimate, or to change: the one given, a trial's, the job's best, or the LoRA default."""
    if body.trial is not None and body.job is None:
        raise UserError("`trial` needs `job`. Give the id of its job too.", param="job")
    if body.design is not None:
        name = body.design.architecture.base
        entry = next((entry for entry in entries if entry.name == name), None)
        if entry is None:
            raise unknown_base_model(name, (entry.name for entry in entries), param="design.architecture.base")
        validate.check(body.design, data.profile.kind, entry, rewarded=data.rewarded, entries=entries)
        return body.design
    if data.job is not None and body.trial is not None:
        return trials.named(c, data.job.id, body.trial, param="trial").design
    if data.job is not None and body.model is None:
        choice = best(history.past(data.job, trials.of_job(c, data.job.id)))
        if choice is not None and choice.trial.design.stages:
            return choice.trial.design
    return baselines(data.space(entries, Pin(model=(_model(body, data, entries),))))[1]


def _model(body: EstimateDesign, data: _Data, entries: Sequence[BaseModelEntry]) -> str:
    names = [entry.name for entry in entries]
    if body.model is not None:
        if body.model not in names:
            raise unknown_base_model(body.model, names)
        return body.model
    if data.job is not None and data.job.search.pin.model:
        return data.job.search.pin.model[0]
    if len(names) == 1:
        return names[0]
    known = ", ".join(names) or "none; add one with `luthier models add NAME FOLDER`"
    raise UserError(f"Name a base model in `model`. Registered: {known}.", param="model")


def _workload(ledger: costs.Ledger, data: _Data, entry: BaseModelEntry) -> Workload:
    """Return the job's own workload; for a file alone, that of a job on this file and base model."""
    if data.job is not None:
        return ledger.workload(data.job, entry.name)
    profile = data.profile
    judged = JudgeSpec(
        kind=profile.kind,
        validation="",
        test="",
        objective="perplexity",
        grader=TextSimilarity() if data.rewarded else None,
        family=entry.facts.family,
        **dict(judge.limits(data.space([entry], Pin(model=(entry.name,))), profile)),
    )
    held_out = (profile.rows - data.rows) // 2
    ratio = ledger.ratio(data.file_id, entry.name)
    return workload(profile, judged, rows=data.rows, validation=held_out, test=held_out, ratio=ratio)


def _room(body: EstimateDesign, live_workers: Sequence[WorkerRecord]) -> costs.Room:
    match body.device:
        case DeviceChoice(kind=kind, memory_bytes=memory):
            # The name of a live worker's device of this kind, so that its calibration applies.
            same = [worker.device.name for worker in live_workers if worker.device.kind == kind]
            name = same[0] if same else f"a {kind.upper()} device"
            device = Device(kind=kind, name=name, memory_bytes=memory, four_bit=kind == "cuda")
            return costs.Room(device=device, memory_bytes=memory)
        case None:
            if not live_workers:
                memory = psutil.virtual_memory().total
                return costs.room(Device(kind="cpu", name="this machine's CPU", memory_bytes=memory))
            worker = live_workers[0]
        case name:
            named = [worker for worker in live_workers if name in (worker.name, worker.id)]
            if not named:
                live = ", ".join(worker.name for worker in live_workers) or "none"
                raise NotFound(
                    f"No live worker is called {name!r}. Live: {live}. Or give a kind and memory_bytes.", param="device"
                )
            worker = named[0]
    return costs.room(worker.device, costs.sharing(worker, live_workers))
