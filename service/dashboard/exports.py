"""The tables of the dashboard as CSV or JSON files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from fastapi import APIRouter, Response

from luthier.errors import NotFound
from luthier.metrics import listed
from luthier.store import Connection, events, jobs, measurements, trials
from service.context import Context, Ctx
from service.dashboard import jobs as listing
from service.dashboard.leaderboard import flat, rows
from service.results import charts, report, serializers
from service.schemas.params import JobId

router = APIRouter(include_in_schema=False)

Form = Literal["csv", "json"]
Line = dict[str, Any]

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that starts with one of these
MOST_JOBS: Final = 1000


@router.get("/jobs.{form}")
def export_jobs(ctx: Ctx, form: Form, chosen: listing.Choice) -> Response:
    with ctx.database.read() as c:
        found, _ = jobs.list_(c, None, MOST_JOBS, {}, **chosen.filters)
        lines = [_job(listing.line(c, record, trials.of_job(c, record.id))) for record in found]
    return table_file(lines, "jobs", form)


@router.get("/jobs/{job_id}/{table}.{form}")
def export_table(ctx: Ctx, job_id: JobId, table: str, form: Form) -> Response:
    if table not in TABLES:
        raise NotFound(f"Table {table!r} was not found; the tables are {', '.join(TABLES)}", param="table")
    with ctx.database.read() as c:
        jobs.get(c, job_id)
        lines = TABLES[table](ctx, c, job_id)
    return table_file(lines, f"{job_id}-{table}", form)


def as_csv(lines: Sequence[Line]) -> str:
    """Return the lines as CSV, with a column for each name in any of them."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in line.items()} for line in lines)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def table_file(lines: Sequence[Line], name: str, form: str) -> Response:
    """Return a table as a download. Raises NotFound if the form is neither csv nor json."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.{form}"', "Cache-Control": "no-store"}
    match form:
        case "csv":
            return Response(as_csv(lines), headers=headers, media_type="text/csv; charset=utf-8")
        case "json":
            text = json.dumps(lines, ensure_ascii=False, allow_nan=False)
            return Response(text, headers=headers, media_type="application/json")
        case _:
            raise NotFound(f"Format {form!r} was not found; the formats are csv and json", param="form")


def _job(line: listing.Line) -> Line:
    job = line.job
    return {
        "id": job.id,
        "data": line.name,
        "status": job.status.value,
        "model": job.model,
        "fine_tuned_model": job.fine_tuned_model,
        "designs": job.luthier.trials_done,
        "designs_total": job.luthier.trials_total,
        "unit": line.unit,
        "best": line.best,
        "best_seeds": line.seeds,
        "base": line.base,
        "default": line.default,
        "device_seconds": job.luthier.device_seconds,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
    }


def _trials(ctx: Context, c: Connection, job_id: str) -> list[Line]:
    records = trials.of_job(c, job_id)
    case = report.case_of(c, ctx, jobs.get(c, job_id), records)
    found = rows(case, None)
    measured = {trial.number: trial.metrics for trial in records}
    measured |= {one.number: case.mean(one.number) for one in case.tried if one.complete and one.past.confirms is None}
    exported = listed("export")
    lines = []
    for row in found:
        shown = row.model_dump(exclude={"design", "tone", "roles", "metrics"})
        metrics = measured[row.number]
        judged = {} if metrics is None else {spec.name: spec.value(metrics) for spec in exported}
        lines.append(
            {
                **shown,
                **judged,
                **{f"design: {name}": value for name, value in flat(row.design, case.facts, for_people=False).items()},
            }
        )
    return lines


def _curves(ctx: Context, c: Connection, job_id: str) -> list[Line]:
    """Return every point of every curve."""
    numbers = {trial.id: trial.number for trial in trials.of_job(c, job_id)}
    return [
        {"trial": numbers[trial_id], "name": name, "stage": stage, "step": step, "value": value}
        for name in measurements.names(c, job_id)
        for trial_id, points in measurements.of_job(c, job_id, name).items()
        for stage, step, value in points
    ]


def _axes(ctx: Context, c: Connection, job_id: str) -> list[Line]:
    return [axis.model_dump(exclude={"values"}) for axis in charts.landscape(ctx, c, job_id).axes]


def _front(ctx: Context, c: Connection, job_id: str) -> list[Line]:
    land = charts.landscape(ctx, c, job_id)
    names = ("number", "summary", "score", "seeds", "parameters", "device_seconds", "front")
    columns = [getattr(land, name) for name in names]
    lines = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return [line for line in lines if line["score"] is not None]


def _timeline(ctx: Context, c: Connection, job_id: str) -> list[Line]:
    found = charts.timeline(c, job_id)
    return [{"worker": worker.worker, **span.model_dump()} for worker in found.workers for span in worker.spans]


def _events(ctx: Context, c: Connection, job_id: str) -> list[Line]:
    found: list[Line] = []
    last = None
    while page := events.since(c, job_id, last, 1000):
        found += [
            serializers.event(event).model_dump(include={"id", "created_at", "level", "message"}) for event in page
        ]
        last = page[-1].id
    return found


TABLES: Final[dict[str, Callable[[Context, Connection, str], list[Line]]]] = {
    "trials": _trials,
    "curves": _curves,
    "axes": _axes,
    "front": _front,
    "timeline": _timeline,
    "events": _events,
}
