"""The page of one job, and the list of its events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from luthier.api_types import Job, Recommendation
from luthier.metrics import curves_for_charts, shown
from luthier.store import artifacts, events, jobs, trials
from luthier.store.rows import JobRecord, TrialRecord
from luthier.trial import JobState
from luthier.values import Frozen
from search.policy.ranking import DEFAULT, UNTUNED
from search.report.build import state
from search.report.importance import Worth, importance
from search.report.inputs import Case, Tried
from search.report.recommend import chosen, comparisons, recommend
from service.context import Ctx, utc_now
from service.dashboard.layout import page
from service.dashboard.leaderboard import Asked, table
from service.jobs import budget
from service.jobs.extend import suggested_seconds
from service.results import queries, report, serializers
from service.schemas.params import After, JobId

router = APIRouter(include_in_schema=False)

LATEST: Final = 12  # events on the job's page
EVENTS_ON_A_PAGE: Final = 100
MOST_POINTS: Final = 120  # per curve; fewer per curve if there are many
FEWEST_POINTS: Final = 40
ALL_POINTS: Final = 20_000


class Against(Frozen):
    """The best score next to a baseline's."""

    other: float
    seeds: int | None
    change: float | None
    better: bool


class Figures(Frozen):
    """The figures at the top of the page, of the trial that the job's results stand for."""

    best: float | None
    best_number: int | None
    seeds: int | None
    recommended: bool
    advice: str | None
    base: Against | None
    default: Against | None
    default_state: str | None
    took: float | None
    left: float | None
    deadline: datetime | None


@router.get("/jobs/{job_id}")
def show_job(request: Request, ctx: Ctx, job_id: JobId, asked: Asked) -> Response:
    now = utc_now()
    with ctx.database.read() as c:
        record, rows = jobs.get(c, job_id), trials.of_job(c, job_id)
        job = queries.job(c, record, ctx)
        case = report.case_of(c, ctx, record, rows)
        latest, more = events.list_(c, job_id, None, LATEST)
        recommendation = recommend(case, tuple(comparisons(case)))
        best = chosen(case, recommendation)
        kept = [] if best is None else [one.kind for one in artifacts.of_trial(c, best.id)]
        name = queries.data_name(c, record)
    shown_figures = figures(case, best, recommendation, job, record, now)
    return page(
        request,
        "job.html.jinja",
        title=heading(job, name),
        job=job,
        case=case,
        others=_others(case, best),
        curves=curves_for_charts(),
        points=min(MOST_POINTS, max(FEWEST_POINTS, ALL_POINTS // max(1, len(rows)))),
        data=name,
        heading=heading(job, name),
        figures=shown_figures,
        table=table(case, asked, best, recommended=shown_figures.recommended),
        extension=_extension(record, rows),
        axes=_axes(case),
        events=[serializers.event(event) for event in latest],
        more_events=more,
        last_event=latest[0].id if latest else None,
        kept=kept,
    )


@router.get("/jobs/{job_id}/events")
def show_events(
    request: Request, ctx: Ctx, job_id: JobId, after: After = None, level: Annotated[str, Query()] = ""
) -> Response:
    with ctx.database.read() as c:
        jobs.get(c, job_id)
        found, more = events.list_(c, job_id, after, EVENTS_ON_A_PAGE)
    shown = [serializers.event(event) for event in found]
    return page(
        request, "events.html.jinja", title="Events", job_id=job_id, events=shown, more=more, first=after is None
    )


def heading(job: Job, data: str) -> str:
    """Return the title of a job: the model it made, or its dataset."""
    return job.fine_tuned_model or data


def figures(
    case: Case, best: Tried | None, recommendation: Recommendation, job: Job, record: JobRecord, now: datetime
) -> Figures:
    value = None if best is None else case.value(best)
    running = job.status is JobState.RUNNING and job.estimated_finish is not None
    return Figures(
        best=value,
        best_number=None if best is None else best.number,
        seeds=None if best is None or not best.past.design.stages else len(case.seeds(best.number)),
        recommended=recommendation.number is not None or case.named is not None,
        advice=_advice(case, recommendation),
        base=None if best is None or best.number == UNTUNED else _against(case, best, UNTUNED),
        default=None if best is None or best.number == DEFAULT else _against(case, best, DEFAULT),
        default_state=_unfinished(case),
        took=budget.wall_clock(record, now),
        left=max(0.0, (job.estimated_finish or 0) - now.timestamp()) if running else None,
        deadline=record.search.deadline,
    )


class Extension(Frozen):
    """What the button offers to add to the budget of an ended search."""

    trials: int
    device_seconds: float | None


def _extension(record: JobRecord, rows: Sequence[TrialRecord]) -> Extension | None:
    """Return half as many further trials, with the device-seconds that should suffice; None where there is no button.

    A job with a deadline is extended by another one, which only the command line and the API take.
    """
    if record.state is not JobState.SUCCEEDED or record.fine_tuned_model is None or record.search.deadline is not None:
        return None
    more = max(2, record.search.trials // 2)
    return Extension(trials=more, device_seconds=suggested_seconds(record, rows, more))


def _against(case: Case, best: Tried, number: int) -> Against | None:
    other = case.by_number.get(number)
    if other is None or not other.complete:
        return None
    mine, theirs = case.pair(best, other)  # their means may be of other rows
    change = None if theirs == 0 else mine / theirs - 1
    seeds = len(case.seeds(number)) if other.past.design.stages else None
    return Against(
        other=case.value(other),
        seeds=seeds,
        change=change,
        better=mine < theirs if case.lower_is_better else mine > theirs,
    )


def _advice(case: Case, recommendation: Recommendation) -> str | None:
    """Return the recommendation in a sentence; while no design is complete, how far the paused ones are."""
    if recommendation.number is not None:
        return recommendation.words[0]
    return " ".join(recommendation.words) if case.winner is None and len(recommendation.words) > 1 else None


def _unfinished(case: Case) -> str | None:
    """Return the state of a default that is not complete, with its score at a rung if it has one; None if it is."""
    default = case.by_number.get(DEFAULT)
    if default is None or default.complete:
        return None
    scored = f", {case.rung_score(default)} on fewer rows" if default.past.measured else ""
    return f"the default is {state(default)}{scored}"


def _others(case: Case, best: Tried | None) -> str:
    """Return the metrics of the best design other than the score, as a phrase."""
    mean = None if best is None else case.mean(best.number)
    if mean is None:
        return ""
    return ", ".join(spec.phrase(mean) for spec in shown("headline", mean) if spec is not case.metric)


def _axes(case: Case) -> list[tuple[str, list[Worth]]]:
    """Return the importance of each parameter by group, without those that never varied."""
    groups: dict[str, list[Worth]] = {}
    for worth in importance(case.history, case.facts):
        if worth.share is not None:
            groups.setdefault(worth.group, []).append(worth)
    return list(groups.items())
