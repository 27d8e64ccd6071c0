"""The outcome of a job: which trial its results stand for, and what the report recommends.

`best`, export, chat, aliases, the model's name and the dashboard's head all ask here, so that they name one trial: the
recommended one. It may be a baseline. When the job succeeds the trial is stored with the job, and stays.
"""

from __future__ import annotations

from collections.abc import Sequence

from luthier.api_types import Recommendation
from luthier.store import Connection, measurements, models
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import TrialState
from search.report.inputs import Case, Tried
from search.report.recommend import chosen, comparisons, recommend
from service.context import Context
from service.jobs import history


def case_of(c: Connection, ctx: Context, job: JobRecord, rows: Sequence[TrialRecord]) -> Case:
    """Return what recommendations and charts are made of, from the job's stored rows."""
    counts = ctx.count_rows(job.train), ctx.count_rows(job.judge.validation), ctx.count_rows(job.judge.test)
    return _case(c, job, rows, counts)


def standing(c: Connection, job: JobRecord, rows: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the trial that the job's results stand for, as `decide` does; None before a trial is complete."""
    if job.best_trial_id is not None:
        return next(row for row in rows if row.id == job.best_trial_id)
    if not any(row.state is TrialState.COMPLETE and row.design.stages for row in rows):
        return next((row for row in rows if row.state is TrialState.COMPLETE), None)
    found = chosen(_case(c, job, rows, (0, 0, 0)))  # no recommendation depends on how many rows there are
    return None if found is None else next(row for row in rows if row.number == found.number)


def _case(c: Connection, job: JobRecord, rows: Sequence[TrialRecord], counts: tuple[int, int, int]) -> Case:
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
            lengths=row.lengths,
        )
        for row, one in zip(rows, history.past(job, rows), strict=True)
    )
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
        rows=counts,
        tried=tried,
        facts={entry.name: entry.facts for entry in models.list_(c)},
        named=next((row.number for row in rows if row.id == job.best_trial_id), None),
    )


def decide(
    c: Connection, ctx: Context, job: JobRecord, rows: Sequence[TrialRecord]
) -> tuple[TrialRecord | None, Recommendation]:
    """Return the trial that the job's results stand for, and the report's recommendation.

    Where nothing is recommended it is the best design on the validation rows; None before a trial is complete.
    """
    case = case_of(c, ctx, job, rows)
    recommendation = recommend(case, tuple(comparisons(case)))
    found = chosen(case, recommendation)
    return None if found is None else next(row for row in rows if row.number == found.number), recommendation
