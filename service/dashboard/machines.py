"""The pages of workers and models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from fastapi import APIRouter, Request, Response

from luthier.api_types import Standing
from luthier.metrics import shown
from luthier.store import Connection, jobs, trials
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import JobState, TrialState
from service.context import Ctx, utc_now
from service.dashboard.exports import table_file
from service.dashboard.layout import page
from service.jobs import outcome
from service.results import queries, serializers

router = APIRouter(include_in_schema=False)

PAGE: Final = 100


@router.get("/workers")
def list_workers(request: Request, ctx: Ctx) -> Response:
    with ctx.database.read() as c:
        workers = queries.all_workers(ctx, c, utc_now())
        held = {trial.owner: trial for trial in _leased(c)}
    found = sorted(workers, key=lambda worker: (not worker.live, -worker.last_seen_at))
    address = str(request.base_url).rstrip("/")
    return page(request, "workers.html.jinja", title="Workers", workers=found, held=held, address=address)


@router.get("/models")
def list_models(request: Request, ctx: Ctx) -> Response:
    with ctx.database.read() as c:
        base = queries.base_models(c)
        tuned = [(job, _standing(c, job)) for job in _succeeded(c)]
        aliases = queries.all_aliases(c)
    found = [standing.metrics for _, standing in tuned if standing is not None]
    return page(
        request,
        "models.html.jinja",
        title="Models",
        base=base,
        tuned=tuned,
        metrics=shown("models", *found),
        aliases=aliases,
    )


@router.get("/workers.{form}")
def export_workers(ctx: Ctx, form: str) -> Response:
    with ctx.database.read() as c:
        found = queries.all_workers(ctx, c, utc_now())
    lines = [
        {
            **worker.model_dump(exclude={"device", "object"}),
            **worker.device.model_dump(exclude={"name"}),
            "device": worker.device.name,
        }
        for worker in found
    ]
    return table_file(lines, "workers", form)


@router.get("/models.{form}")
def export_models(ctx: Ctx, form: str) -> Response:
    with ctx.database.read() as c:
        base = queries.base_models(c)
        tuned = [serializers.fine_tuned_model(job) for job in _succeeded(c)]
    lines = [
        {
            "id": model.id,
            "created": model.created,
            "job": model.job,
            "source": model.source,
            **({} if model.facts is None else model.facts.model_dump(mode="json", exclude={"anatomy"})),
        }
        for model in (*base, *tuned)
    ]
    return table_file(lines, "models", form)


def _leased(c: Connection) -> Iterator[TrialRecord]:
    for job in jobs.active(c):
        yield from (trial for trial in trials.of_job(c, job.id) if trial.state is TrialState.LEASED)


def _succeeded(c: Connection) -> Sequence[JobRecord]:
    latest, _ = jobs.list_(c, None, PAGE, {})
    return [job for job in latest if job.state is JobState.SUCCEEDED and job.fine_tuned_model is not None]


def _standing(c: Connection, job: JobRecord) -> Standing | None:
    """Return the design that the job's model stands for, with means over its seeds."""
    rows = trials.of_job(c, job.id)
    return serializers.standing(outcome.standing(c, job, rows), rows)
