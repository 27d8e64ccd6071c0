"""The pages of datasets: the list with the upload form, and one dataset with its rows."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from luthier.dataset import Profile
from luthier.dataset.profile import MAX_LENGTH
from luthier.store import Connection, files, jobs
from luthier.values import Frozen
from service.context import Ctx
from service.dashboard.exports import table_file
from service.dashboard.layout import page
from service.datasets.rows import rows_of
from service.results import serializers
from service.schemas.params import After, FileId

router = APIRouter(include_in_schema=False)

ON_A_PAGE: Final = 25
ROWS: Final = 10
LATEST_JOBS: Final = 100
MOST: Final = 1000


class Bin(Frozen):
    """A bar of the histogram of row lengths."""

    name: str
    count: int
    share: float


@router.get("/datasets")
def list_datasets(request: Request, ctx: Ctx, after: After = None) -> Response:
    with ctx.database.read() as c:
        records, more = files.list_(c, after, ON_A_PAGE)
    found = [(serializers.file(record), Profile.model_validate(record.profile)) for record in records]
    limit = ctx.settings.max_upload_bytes
    return page(request, "datasets.html.jinja", title="Datasets", files=found, more=more, after=after, limit=limit)


@router.get("/datasets.{form}")
def export_datasets(ctx: Ctx, form: str) -> Response:
    with ctx.database.read() as c:
        records, _ = files.list_(c, None, MOST)
    lines = [
        {
            "id": record.id,
            "filename": record.filename,
            "bytes": record.bytes,
            "created_at": int(record.created_at.timestamp()),
            **{name: record.profile.get(name) for name in ("kind", "format", "rows", "tokens", "duplicates")},
        }
        for record in records
    ]
    return table_file(lines, "datasets", form)


@router.get("/datasets/{file_id}/rows.{form}")
def export_rows(ctx: Ctx, file_id: FileId, form: str) -> Response:
    """Export all rows, normalised."""
    with ctx.database.read() as c:
        record = files.get(c, file_id)
    rows = rows_of(ctx, record, 1, sys.maxsize // 2)
    lines = [
        {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in row.items()
        }
        for row in rows.data
    ]
    return table_file(lines, f"{file_id}-rows", form)


@router.get("/datasets/{file_id}")
def show_dataset(
    request: Request,
    ctx: Ctx,
    file_id: FileId,
    first: Annotated[int, Query(ge=1)] = 1,
    contains: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    with ctx.database.read() as c:
        record = files.get(c, file_id)
        used = _used(c, file_id)
    rows = rows_of(ctx, record, first, ROWS, contains)
    profile = Profile.model_validate(record.profile)
    return page(
        request,
        "dataset.html.jinja",
        title=record.filename,
        file=serializers.file(record),
        profile=profile,
        max_length=MAX_LENGTH,
        bins=_bins(profile),
        rows=[(number, _cells(row)) for number, row in zip(rows.numbers, rows.data, strict=True)],
        first=first,
        last=first + len(rows.data) - 1,
        total=rows.total,
        more=rows.has_more,
        contains=contains,
        step=ROWS,
        used=used,
    )


def _used(c: Connection, file_id: str) -> list[tuple[str, str]]:
    """Return the latest jobs that use a file, with their states."""
    latest, _ = jobs.list_(c, None, LATEST_JOBS, {})
    return [(job.id, job.state.value) for job in latest if file_id in (job.training_file, job.validation_file)]


def _bins(profile: Profile) -> list[Bin]:
    edges, counts = profile.row_lengths.edges, profile.row_lengths.counts
    names = [
        str(edge) if index + 1 == len(edges) or edges[index + 1] - edge <= 1 else f"{edge}–{edges[index + 1] - 1}"
        for index, edge in enumerate(edges)
    ]
    if edges[-1] > 1:
        names[-1] = f"{edges[-1]}–{2 * edges[-1] - 1}"
    filled = [index for index, count in enumerate(counts) if count]
    highest = max(counts, default=1) or 1
    return [
        Bin(name=names[index], count=counts[index], share=counts[index] / highest)
        for index in range(filled[0] if filled else 0, len(counts))
    ]


def _cells(row: dict[str, Any]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return each column of a row: its name, and either its text or its messages as (role, content) pairs."""
    return [(name, *_cell(value)) for name, value in row.items()]


def _cell(value: Any) -> tuple[str, list[tuple[str, str]]]:
    if isinstance(value, str):
        return value, []
    if isinstance(value, list) and value and all(isinstance(one, dict) and "role" in one for one in value):
        return "", [(str(one["role"]), _said(one)) for one in value]
    return json.dumps(value, ensure_ascii=False), []


def _said(message: dict[str, Any]) -> str:
    calls = message.get("tool_calls")
    parts = (
        message.get("reasoning_content"),
        message.get("content"),
        json.dumps(calls, ensure_ascii=False) if calls else None,
    )
    return "\n".join(str(part) for part in parts if part)
