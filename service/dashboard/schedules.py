"""The pages of schedules: the list, one schedule with its history, and the form for a new one."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter

from luthier.schedule import CatchUp, Overlap
from luthier.store import Connection, files, jobs, models
from luthier.task import Search
from service.context import Ctx, utc_now
from service.dashboard.exports import Line, table_file
from service.dashboard.layout import page
from service.schedules import manage
from service.schemas.params import After, ScheduleId

router = APIRouter(include_in_schema=False)

ON_A_PAGE: Final = 50
RUNS: Final = 30
MOST: Final = 1000
FILES: Final = 200
OVERLAPS: Final = {
    Overlap.SKIP: "skip the new run",
    Overlap.QUEUE: "queue the new run",
    Overlap.REPLACE: "cancel the earlier run",
    Overlap.ALLOW: "run both",
}
CATCH_UPS: Final = {
    CatchUp.NONE: "none",
    CatchUp.LATEST: "the latest",
    CatchUp.ALL: "all",
}
_JSON: Final[TypeAdapter[Any]] = TypeAdapter(Any)


@router.get("/schedules")
def list_schedules(request: Request, ctx: Ctx, after: After = None) -> Response:
    with ctx.database.read() as c:
        found = manage.listing(c, after, ON_A_PAGE, utc_now())
        names = {schedule.id: _data(c, schedule.job) for schedule in found.data}
    return page(
        request,
        "schedules.html.jinja",
        title="Schedules",
        schedules=found.data,
        names=names,
        more=found.has_more,
        after=after,
    )


@router.get("/schedules.{form}")
def export_schedules(ctx: Ctx, form: str) -> Response:
    with ctx.database.read() as c:
        found = manage.listing(c, None, MOST, utc_now()).data
    return table_file([schedule.model_dump(mode="json") for schedule in found], "schedules", form)


@router.get("/schedules/new")
def new_schedule(
    request: Request, ctx: Ctx, job: Annotated[str | None, Query(description="job to copy the settings from")] = None
) -> Response:
    with ctx.database.read() as c:
        records, _ = files.list_(c, None, FILES)
        entries = [entry.name for entry in models.list_(c)]
        source = None if job is None else jobs.get(c, job)
        chosen = None if source is None else _filename(c, source.training_file)
    body: dict[str, Any] = {}
    if source is not None:
        body = {
            "task": source.task.model_dump(mode="json", exclude_defaults=True),
            "search": source.search.model_dump(mode="json", exclude={"deadline"}, exclude_defaults=True),
            "constraints": source.constraints.model_dump(mode="json", exclude_none=True),
            "validation_file": source.validation_file,
            "suffix": source.suffix,
        }
    return page(
        request,
        "schedule_new.html.jinja",
        title="New schedule",
        names=list(dict.fromkeys(record.filename for record in records)),
        files=records,
        models=entries,
        source=source,
        chosen=chosen,
        body={name: value for name, value in body.items() if value},
        trials=(Search() if source is None else source.search).trials,
        suffix="" if source is None else source.suffix or "",
        overlaps=OVERLAPS,
        catch_ups=CATCH_UPS,
    )


@router.get("/schedules/{schedule_id}")
def show_schedule(request: Request, ctx: Ctx, schedule_id: ScheduleId, after: After = None) -> Response:
    with ctx.database.read() as c:
        schedule = manage.get(c, schedule_id, utc_now())
        runs = manage.runs(c, schedule_id, after, RUNS)
        name = _data(c, schedule.job)
    return page(
        request,
        "schedule.html.jinja",
        title=schedule.name,
        schedule=schedule,
        data=name,
        runs=runs.data,
        more=runs.has_more,
        after=after,
        body=_JSON.dump_json(schedule.job, indent=2).decode(),
        overlaps=OVERLAPS,
        catch_ups=CATCH_UPS,
    )


@router.get("/schedules/{schedule_id}/runs.{form}")
def export_runs(ctx: Ctx, schedule_id: ScheduleId, form: str) -> Response:
    with ctx.database.read() as c:
        runs = manage.runs(c, schedule_id, None, MOST).data
    lines: list[Line] = [run.model_dump(mode="json", exclude={"contest"}) for run in runs]
    return table_file(lines, f"{schedule_id}-runs", form)


def _data(c: Connection, job: dict[str, Any]) -> str:
    """Return the name of the dataset or environment of a job request."""
    environment = (job.get("task") or {}).get("environment")
    if environment is not None:
        return str(environment["name"])
    match job.get("training_file"):
        case {"newest": name}:
            return f"newest {name}"
        case str(file_id):
            return _filename(c, file_id) or file_id
        case _:
            return "–"


def _filename(c: Connection, file_id: str) -> str | None:
    known, _ = files.list_(c, None, MOST)
    return next((record.filename for record in known if record.id == file_id), None)
