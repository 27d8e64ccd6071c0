"""The list of jobs."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response

from luthier.api_types import Job
from luthier.metrics import deciding
from luthier.store import Connection, jobs, schedules, trials
from luthier.store.rows import JobRecord, TrialRecord
from luthier.values import Frozen
from search.policy import ranking
from search.policy.history import Past
from search.policy.ranking import DEFAULT, UNTUNED
from service.context import Ctx, utc_now
from service.dashboard.layout import page
from service.jobs import budget, history, outcome
from service.results import queries, serializers
from service.schemas.params import STORABLE, After, OfSchedule

router = APIRouter(include_in_schema=False)

ON_A_PAGE: Final = 25
OFFERED: Final = 200


class Chosen(Frozen):
    """The filters of the list; an empty one matches all jobs."""

    tag: str = ""
    schedule_id: str = ""

    @property
    def filters(self) -> dict[str, Any]:
        """Return the filters as the store takes them."""
        return {"tags": (self.tag,) if self.tag else (), "schedule_id": self.schedule_id or None}

    @property
    def query(self) -> str:
        """Return the filters as a URL query."""
        return urlencode(self.model_dump(exclude_defaults=True))


def _chosen(
    tag: Annotated[str, Query(max_length=200, pattern=STORABLE)] = "", schedule_id: OfSchedule = None
) -> Chosen:
    return Chosen(tag=tag, schedule_id=schedule_id or "")


Choice = Annotated[Chosen, Depends(_chosen)]


class Line(Frozen):
    """A job in the list."""

    job: Job
    name: str
    unit: str
    best: float | None
    seeds: int | None
    base: float | None
    default: float | None
    gain: float | None
    better: bool
    seconds: float | None


@router.get("/")
def list_jobs(request: Request, ctx: Ctx, chosen: Choice, after: After = None) -> Response:
    with ctx.database.read() as c:
        records, more = jobs.list_(c, after, ON_A_PAGE, {}, **chosen.filters)
        found = [line(c, record, trials.of_job(c, record.id)) for record in records]
        known = {schedule.id: schedule.name for schedule in schedules.list_(c, None, OFFERED)[0]}
        tags = jobs.tags(c)
    if chosen.schedule_id:
        known.setdefault(chosen.schedule_id, chosen.schedule_id)  # jobs of a deleted schedule are kept
    return page(
        request,
        "jobs.html.jinja",
        title="Jobs",
        lines=found,
        more=more,
        first=after is None,
        chosen=chosen,
        tags=tags,
        schedules=known,
    )


def line(c: Connection, record: JobRecord, rows: list[TrialRecord]) -> Line:
    past = history.past(record, rows)
    metric = deciding(record.judge.objective)
    sign = metric.sign
    job = serializers.job(record, rows, utc_now(), outcome.standing(c, record, rows))
    standing = job.luthier.best
    best = None if standing is None else metric.value(standing.metrics)
    base, default = _value(past, UNTUNED), _value(past, DEFAULT)
    gain, better = None, False
    if standing is not None and base is not None:
        mine, theirs = ranking.on_same_rows(past, standing.number, UNTUNED)
        gain, better = (mine / theirs - 1 if theirs else None), mine < theirs
    base = None if base is None else sign * base
    return Line(
        job=job,
        name=queries.data_name(c, record),
        unit=metric.label,
        best=best,
        seeds=None if standing is None or standing.number == UNTUNED else standing.seeds,
        base=base,
        default=None if default is None else sign * default,
        gain=gain,
        better=better,
        seconds=budget.wall_clock(record, utc_now()),
    )


def _value(past: list[Past], number: int) -> float | None:
    found = next((one for one in past if one.number == number and one.value is not None), None)
    return None if found is None else ranking.mean_value(found, past)
