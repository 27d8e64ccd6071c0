"""The page that compares jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from luthier.errors import UserError
from luthier.metrics import cell, shown
from luthier.store import jobs, models, trials
from luthier.store.rows import JobRecord
from service.context import Ctx
from service.dashboard import jobs as listing
from service.dashboard.layout import duration, page, percent
from service.dashboard.leaderboard import flat
from service.jobs import outcome

router = APIRouter(include_in_schema=False)

MOST: Final = 6
OFFERED: Final = 50

Rows = list[tuple[str, list[str]]]


@router.get("/jobs/compare")
def compare(
    request: Request,
    ctx: Ctx,
    wanted: Annotated[list[str] | None, Query(alias="jobs", description="ids of jobs", max_length=100)] = None,
) -> Response:
    """Compare up to six jobs, each given as `jobs=`. Values that differ are bold. Raises UserError for more jobs."""
    ids = list(dict.fromkeys(wanted or ()))
    if len(ids) > MOST:
        raise UserError(f"At most {MOST} jobs can be compared, not {len(ids)}", param="jobs")
    with ctx.database.read() as c:
        records = [jobs.get(c, job_id) for job_id in ids]
        rows = {record.id: trials.of_job(c, record.id) for record in records}
        lines = [listing.line(c, record, rows[record.id]) for record in records]
        facts = {entry.name: entry.facts for entry in models.list_(c)}
        others, _ = jobs.list_(c, None, OFFERED, {})
        best = [outcome.standing(c, record, rows[record.id]) for record in records]
    offered = [each for each in others if each.id not in ids]
    designs = [{} if trial is None else flat(trial.design, facts) for trial in best]
    names = list(dict.fromkeys(name for design in designs for name in design))
    kinds = list(dict.fromkeys(f"{line.unit} on {line.name}" for line in lines))
    return page(
        request,
        "compare.html.jinja",
        title="Compare jobs",
        lines=lines,
        others=offered if len(ids) < MOST else [],
        mixed=kinds if len(kinds) > 1 else [],
        rows=[
            *_rows(records, lines),
            *metric_rows(lines),
            ("recommended trial", ["–" if each is None else f"#{each.number}" for each in best]),
        ],
        designs=[(name, [design.get(name, "–") for design in designs]) for name in names],
    )


def _rows(records: list[JobRecord], lines: list[listing.Line]) -> Rows:
    return [
        ("status", [line.job.status.value for line in lines]),
        ("dataset", [line.name for line in lines]),
        ("kind of data", [line.job.luthier.kind.value for line in lines]),
        ("scored in", [line.unit for line in lines]),
        ("designs", [f"{line.job.luthier.trials_done} of {line.job.luthier.trials_total}" for line in lines]),
        ("repeats with other seeds", [_repeats(line) for line in lines]),
        ("pinned", [_pins(record) for record in records]),
        ("device time", [duration(line.job.luthier.device_seconds) for line in lines]),
        ("wall-clock time", [duration(line.seconds) for line in lines]),
        ("untuned base", [cell(line.base) for line in lines]),
        ("LoRA default", [cell(line.default) for line in lines]),
        ("recommended", [cell(line.best) for line in lines]),
        ("seeds of the recommended", ["–" if line.seeds is None else str(line.seeds) for line in lines]),
        ("change from the base", [percent(line.gain) for line in lines]),
    ]


def metric_rows(lines: Sequence[listing.Line]) -> Rows:
    """The metrics of each job's best design on the validation rows, as means over its seeds."""
    found = [None if line.job.luthier.best is None else line.job.luthier.best.metrics for line in lines]
    return [
        (f"recommended: {spec.label}", [cell(spec.value(one)) for one in found]) for spec in shown("compare", *found)
    ]


def _repeats(line: listing.Line) -> str:
    progress = line.job.luthier
    return f"{progress.confirmations_done} of {progress.confirmations_total}"


def _pins(record: JobRecord) -> str:
    pins = record.search.pin.model_dump(exclude_none=True)
    return "; ".join(f"{name} {', '.join(map(str, values))}" for name, values in pins.items()) or "nothing"
