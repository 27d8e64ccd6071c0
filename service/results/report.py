"""The report of a job: its rows as `search.report.build` reads them, and the answer as JSON, HTML or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from luthier.errors import NotFound
from luthier.report import Report
from luthier.store import Connection, events, files, jobs, measurements, models, trials
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import TRAIN_LOSS
from search.policy.ranking import best
from search.report.build import explain
from search.report.inputs import Case, Tried
from service.context import Context
from service.jobs import history, space

NO_MORE: Final = "No more trials: "  # how the diary says why a search has ended
RECENT: Final = 50  # of a job's events, among which that one is


def report(ctx: Context, job_id: str) -> Report:
    """What a job has found out, as far as it has come. Raises NotFound."""
    with ctx.database.read() as c:
        job = jobs.get(c, job_id)
        case = case_of(c, ctx, job, trials.of_job(c, job_id))
    return explain(case.model_copy(update={"space": space.space_if_any(ctx, job)}))


def case_of(c: Connection, ctx: Context, job: JobRecord, rows: Sequence[TrialRecord]) -> Case:
    """A job as the report and the charts are made of it, apart from its space, which takes longer to make."""
    past = history.past(job, rows)
    found = measurements.scores_of_job(c, job.id)
    tried = tuple(
        Tried(
            past=one,
            id=row.id,
            seed=row.seed,
            origin=row.origin,
            metrics=row.metrics,
            test_metrics=row.test_metrics,
            scores=found.get(row.id),
            error=row.error,
        )
        for row, one in zip(rows, past, strict=True)
    )
    choice = best(past)
    winner = None if choice is None else next(row for row in rows if row.number == choice.trial.number)
    return Case(
        job=job.id,
        state=job.state,
        error=None if job.error is None else str(job.error.get("message")),
        fine_tuned_model=job.fine_tuned_model,
        created_at=int(job.created_at.timestamp()),
        finished_at=None if job.finished_at is None else int(job.finished_at.timestamp()),
        task=job.task,
        judge=job.judge,
        search=job.search,
        file=_filename(c, job),
        rows=(ctx.count_rows(job.train), ctx.count_rows(job.judge.validation), ctx.count_rows(job.judge.test)),
        tried=tried,
        facts={entry.name: entry.facts for entry in models.list_(c)},
        ended=_ended(c, job.id),
        curve=() if winner is None else _curve(c, winner),
    )


def _filename(c: Connection, job: JobRecord) -> str | None:
    try:
        return files.get(c, job.training_file).filename
    except NotFound:  # a file may be deleted once the job has ended
        return None


def _ended(c: Connection, job_id: str) -> str | None:
    recent, _ = events.list_(c, job_id, None, RECENT)
    said = (event.message for event in recent if event.message.startswith(NO_MORE))
    return next((message.removeprefix(NO_MORE).rstrip(".") for message in said), None)


def _curve(c: Connection, winner: TrialRecord) -> tuple[float, ...]:
    """The training loss of its last stage, step by step."""
    last = len(winner.design.stages) - 1
    return tuple(point.value for point in measurements.of_trial(c, winner.id, TRAIN_LOSS) if point.stage == last)
