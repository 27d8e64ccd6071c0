"""The list of jobs."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from luthier.store import jobs, trials
from service import views
from service.api.paging import After
from service.context import Here, utc_now
from service.dashboard.shell import page

router = APIRouter(include_in_schema=False)

ON_A_PAGE = 25


@router.get("/")
def list_jobs(request: Request, here: Here, after: After = None) -> Response:
    now = utc_now()
    with here.database.read() as c:
        records, more = jobs.list_(c, after, ON_A_PAGE, {})
        found = [views.job(record, trials.of_job(c, record.id), now) for record in records]
    return page(request, "jobs.html.jinja", title="Jobs", jobs=found, more=more, after=after)
