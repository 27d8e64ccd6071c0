"""Answers to "what if": a design and a change to it, priced for a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from luthier.api_types import CostParts, DesignEstimate
from luthier.dataset import Profile
from luthier.design import Design
from luthier.errors import NotFound, UserError
from luthier.models.base_model import BaseModelEntry
from luthier.store import Connection, files, jobs, models, trials, workers
from luthier.store.rows import JobRecord, WorkerRecord
from luthier.task import Constraints, JudgeSpec, Pin, TextSimilarity
from luthier.worker_protocol import Device
from search.cost.workload import workload
from search.methods.amounts import Workload
from search.policy.priors import baselines
from search.policy.ranking import best
from search.space import validate
from search.space.modify import changed, place
from search.space.space import Space, space
from service.context import Context
from service.jobs import costs, history
from service.jobs.create import ENCODER_WINDOW, GRADED, LEAST_NEW_TOKENS, MOST_NEW_TOKENS
from service.schemas.requests import DeviceChoice, EstimateDesign

HELD_OUT_SHARE: Final = 0.1  # of a file's rows, for validation and for the test each


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What the designs are trained on."""

    profile: Profile
    file_id: str
    rows: int
    rewarded: bool
    job: JobRecord | None

    def space(self, entries: Sequence[BaseModelEntry], pin: Pin) -> Space:
        return space(
            self.profile.kind,
            self.rows,
            entries,
            pin,
            Constraints(),
            length=self.profile.long_rows,
            rewarded=self.rewarded,
        )


def answer(ctx: Context, c: Connection, body: EstimateDesign, now: datetime) -> DesignEstimate:
    """Raises UserError or one of its children, naming the field at fault."""
    ledger = costs.Ledger(ctx, c)
    asked = _question(ctx, c, body)
    entries = models.list_(c)
    start = _start(c, body, asked, entries)
    live_workers = workers.live(c, now, ctx.settings.lease_seconds)
    room = _room(body, live_workers)

    def priced(design: Design) -> DesignEstimate:
        entry = ledger.entry(design.architecture.base)
        load = _workload(ledger, asked, entry)
        limit = asked.job.constraints.memory_bytes if asked.job else None
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
        design = changed(start, body.change, lambda pin: asked.space(entries, pin))
    except UserError as error:
        error.param = place(error)
        raise
    return priced(design).model_copy(update={"unchanged": priced(start)})


def _question(ctx: Context, c: Connection, body: EstimateDesign) -> _Question:
    if (body.job is None) == (body.dataset is None):
        raise UserError(
            "say what is trained on: either `dataset`, the id of an uploaded file, or `job`, the id of a job",
            param="dataset",
        )
    if body.job is not None:
        job = jobs.get(c, body.job)
        return _Question(
            profile=Profile.model_validate(files.get(c, job.training_file).profile),
            file_id=job.training_file,
            rows=ctx.count_rows(job.train),
            rewarded=job.task.rewarded,
            job=job,
        )
    assert body.dataset is not None
    record = files.get(c, body.dataset)
    profile = Profile.model_validate(record.profile)
    return _Question(
        profile=profile,
        file_id=record.id,
        rows=rows_to_train(profile),
        rewarded=profile.kind in GRADED,
        job=None,
    )


def rows_to_train(profile: Profile) -> int:
    """About how many rows of a file are trained on, before it is split."""
    return max(1, profile.rows - 2 * round(HELD_OUT_SHARE * profile.rows))


def _start(c: Connection, body: EstimateDesign, asked: _Question, entries: Sequence[BaseModelEntry]) -> Design:
    """The design that is asked for, or that the change is a change to."""
    if body.trial is not None and body.job is None:
        raise UserError("trial is one of a job: name the job too", param="job")
    if body.design is not None:
        _check(body.design, asked, entries)
        return body.design
    if asked.job is not None and (found := _of_job(c, asked.job, body)) is not None:
        return found
    return baselines(asked.space(entries, Pin(model=(_model(body, asked, entries),))))[1]


def _of_job(c: Connection, job: JobRecord, body: EstimateDesign) -> Design | None:
    rows = trials.of_job(c, job.id)
    if body.trial is not None:
        named = next((row for row in rows if body.trial in (row.id, str(row.number))), None)
        if named is None:
            raise NotFound(f"job {job.id} has no trial {body.trial!r}: give its id or its number", param="trial")
        return named.design
    if body.model is not None:
        return None
    choice = best(history.past(job, rows))
    return choice.trial.design if choice is not None and choice.trial.design.stages else None


def _check(design: Design, asked: _Question, entries: Sequence[BaseModelEntry]) -> None:
    entry = next((entry for entry in entries if entry.name == design.architecture.base), None)
    if entry is None:
        known = ", ".join(entry.name for entry in entries) or "none"
        raise NotFound(
            f"the design is for base model {design.architecture.base!r}, which is not registered; registered: {known}",
            param="design.architecture.base",
        )
    validate.check(design, asked.profile.kind, entry, rewarded=asked.rewarded)


def _model(body: EstimateDesign, asked: _Question, entries: Sequence[BaseModelEntry]) -> str:
    known = ", ".join(entry.name for entry in entries) or "none; add one with `luthier models add NAME FOLDER`"
    if body.model is not None:
        if body.model not in [entry.name for entry in entries]:
            raise NotFound(f"there is no base model {body.model!r}; registered: {known}", param="model")
        return body.model
    if asked.job is not None and asked.job.search.pin.model:
        return asked.job.search.pin.model[0]
    if len(entries) == 1:
        return entries[0].name
    raise UserError(f"say in model which base model is meant; registered: {known}", param="model")


def _workload(ledger: costs.Ledger, asked: _Question, entry: BaseModelEntry) -> Workload:
    """The job's own; for a file alone that of the job that would be made of it."""
    if asked.job is not None:
        return ledger.workload(asked.job, entry.name)
    profile, facts = asked.profile, entry.facts
    defaults = JudgeSpec.model_fields
    answers = profile.target_lengths.p90 or defaults["max_new_tokens"].default
    judge = JudgeSpec(
        kind=profile.kind,
        validation="",
        test="",
        objective="perplexity",
        grader=TextSimilarity() if asked.rewarded else None,
        window=min(defaults["window"].default, facts.context, *([ENCODER_WINDOW] * (facts.family == "encoder"))),
        max_tokens=min(defaults["max_tokens"].default, facts.context),
        max_new_tokens=min(max(answers, LEAST_NEW_TOKENS), MOST_NEW_TOKENS),
        family=facts.family,
    )
    held_out = (profile.rows - asked.rows) // 2
    ratio = ledger.ratio(asked.file_id, entry.name)
    return workload(profile, judge, rows=asked.rows, validation=held_out, test=held_out, ratio=ratio)


def _room(body: EstimateDesign, live_workers: Sequence[WorkerRecord]) -> costs.Room:
    match body.device:
        case DeviceChoice(kind=kind, memory_bytes=memory):
            four_bit = kind == "cuda"
            device = Device(kind=kind, name=f"a {kind.upper()} device", memory_bytes=memory, four_bit=four_bit)
            return costs.Room(device=_like(device, live_workers), memory_bytes=memory)
        case None:
            if not live_workers:
                return costs.room(costs.this_machine())
            return costs.room(live_workers[0].device, costs.sharing(live_workers[0], live_workers))
        case name:
            named = [worker for worker in live_workers if name in (worker.name, worker.id)]
            if not named:
                live = ", ".join(worker.name for worker in live_workers) or "none"
                raise NotFound(
                    f"there is no live worker {name!r}; live: {live}. Or give a kind and memory_bytes", param="device"
                )
            return costs.room(named[0].device, costs.sharing(named[0], live_workers))


def _like(device: Device, live_workers: Sequence[WorkerRecord]) -> Device:
    """With the name of a live worker's device of the same kind, so that what trials have shown of it counts."""
    same = [worker.device.name for worker in live_workers if worker.device.kind == device.kind]
    return device.model_copy(update={"name": same[0]}) if same else device
