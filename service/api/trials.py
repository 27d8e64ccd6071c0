"""One trial: its design explained, its log, its answers, its weights; and designs that people add or stop by hand."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Body, Path, Query
from fastapi.responses import StreamingResponse

from luthier.api_types import DesignWords, Page, Trial, TrialDetails, TrialLine, TrialSample
from luthier.errors import NotFound
from luthier.store import Connection, artifacts, measurements, models, trials
from luthier.store.rows import TrialRecord
from search.policy.ranking import UNTUNED
from search.report import phrases
from service.api.jobs import JobId
from service.api.results import TAR, tar_of
from service.context import Ctx, utc_now
from service.jobs import history, manual_trials
from service.results import serializers
from service.schemas.requests import AddTrial

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}/trials", tags=["Results"])

TrialName = Annotated[str, Path(description="id of a trial, or its number in the job", examples=["trial-03bd77", "4"])]

EXAMPLES: Final = {
    "change": {"summary": "Trial 4 with another rank", "value": {"trial": "4", "change": {"rank": 64}}},
    "best": {"summary": "The best so far, all weights trained", "value": {"change": {"update": "full"}}},
}


@router.post("", summary="Add a design by hand")
def add_trial(ctx: Ctx, job_id: JobId, body: Annotated[AddTrial, Body(openapi_examples=EXAMPLES)]) -> Trial:
    """It counts as one of the job's trials and is trained to its end. The service checks that it is legal for the data
    and the base models of the job, and fits a live worker.

    409 where the job has ended, has no trial left, or has this design already.
    """
    return serializers.trial(manual_trials.add(ctx, job_id, body, utc_now()), None)


@router.get("/{trial_id}", summary="Look at one trial")
def get_trial(ctx: Ctx, job_id: JobId, trial_id: TrialName) -> TrialDetails:
    """Beside what the listing says, its design in sentences and the weights that were kept."""
    with ctx.database.read() as c:
        return details(c, manual_trials.named(c, job_id, trial_id))


@router.post("/{trial_id}/cancel", summary="Stop one trial")
def cancel_trial(ctx: Ctx, job_id: JobId, trial_id: TrialName) -> Trial:
    """A running one stops at its next heartbeat, and the job goes on with the others. 409 for one that has ended."""
    return serializers.trial(manual_trials.stop(ctx, job_id, trial_id, utc_now()), None)


@router.get("/{trial_id}/log", summary="Read a trial's log")
def get_log(
    ctx: Ctx,
    job_id: JobId,
    trial_id: TrialName,
    limit: Annotated[int, Query(description="the last lines, at most so many", ge=1, le=10_000)] = 1000,
) -> Page[TrialLine]:
    """What its workers did with it, in the order in which they did it."""
    with ctx.database.read() as c:
        return log_of(c, manual_trials.named(c, job_id, trial_id), limit)


@router.get("/{trial_id}/samples", summary="Read a trial's answers")
def get_samples(ctx: Ctx, job_id: JobId, trial_id: TrialName) -> Page[TrialSample]:
    """Short greedy answers to the first validation prompts, beside those of the untuned base. Of trials whose weights
    were kept when they ended; encoders do not answer."""
    with ctx.database.read() as c:
        return Page(data=answers(c, manual_trials.named(c, job_id, trial_id)))


@router.get(
    "/{trial_id}/artifact", summary="Download a trial's weights", response_class=StreamingResponse, responses=TAR
)
def get_trial_artifact(
    ctx: Ctx,
    job_id: JobId,
    trial_id: TrialName,
    form: Annotated[
        Literal["adapter", "merged"], Query(alias="format", description="of those in `artifacts`")
    ] = "merged",
) -> StreamingResponse:
    """The weights of the finalists and of the plain default are kept; those of the others are gone."""
    with ctx.database.read() as c:
        trial = manual_trials.named(c, job_id, trial_id)
        kept = {artifact.kind: artifact for artifact in artifacts.of_trial(c, trial.id)}
    if form not in kept:
        raise NotFound(
            f"the weights of trial {trial.number} were not kept as {form}; kept: {', '.join(kept) or 'nothing'}",
            param="format",
        )
    return tar_of(ctx, trial, kept[form], f"{job_id}-trial-{trial.number}-{form}.tar")


def details(c: Connection, trial: TrialRecord) -> TrialDetails:
    """A trial as its page shows it."""
    rows = trials.of_job(c, trial.job_id)
    facts = {entry.name: entry.facts for entry in models.list_(c)}
    view = serializers.trial(
        trial, history.repeats(rows).get(trial.number), measurements.brought(c, trial.job_id).get(trial.id)
    )
    explained = phrases.explained(trial.design, facts.get(trial.design.architecture.base))
    return TrialDetails(
        **dict(view),
        stopped=trial.stopped,
        explained=tuple(DesignWords(axis=axis, words=said) for axis, said in explained),
        artifacts=tuple(artifacts.of_trial(c, trial.id)),
    )


def log_of(c: Connection, trial: TrialRecord, limit: int) -> Page[TrialLine]:
    """The last lines of a trial's log."""
    found = measurements.lines_of(c, trial.id, limit + 1)
    lines = (TrialLine(lease=lease, at=int(line.at.timestamp()), text=line.text) for lease, line in found[-limit:])
    return Page(data=tuple(lines), has_more=len(found) > limit)


def answers(c: Connection, trial: TrialRecord) -> tuple[TrialSample, ...]:
    """A trial's samples beside the base's: the prompts of a job are the same for all of its trials."""
    base = next(row for row in trials.of_job(c, trial.job_id) if row.number == UNTUNED)
    said = {sample.prompt: sample.answer for sample in measurements.samples_of(c, base.id)}
    return tuple(
        TrialSample(**dict(sample), base_answer=said.get(sample.prompt))
        for sample in measurements.samples_of(c, trial.id)
    )
