"""Dataset files, which are checked row by row when they are uploaded, and environments."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from luthier.api_types import Dataset, DatasetRows, Deleted, Environment, FileObject, Page
from luthier.store import files
from service.api.downloads import pieces
from service.context import Ctx
from service.datasets import environments, ingest
from service.datasets.multipart import receive
from service.datasets.rows import rows_of
from service.results import serializers
from service.schemas.params import After, FileId, Limit

router = APIRouter(tags=["Files"])
environments_router = APIRouter(tags=["Environments"])

FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "the dataset"},
                        "purpose": {"type": "string", "enum": ["fine-tune"]},
                    },
                }
            }
        },
    }
}


@router.post("/v1/files", summary="Upload a dataset", openapi_extra=FORM)
async def upload(ctx: Ctx, request: Request) -> FileObject:
    """Accepts JSON Lines, a JSON array, CSV, Parquet, plain text or Markdown.

    Rows may be `text`; `prompt` + `completion`; `messages` (+ `tools`); Alpaca's `instruction`, `input`, `output`;
    ShareGPT's `conversations`; preferences as `prompt`, `chosen`, `rejected` or in OpenAI's format. Every row is
    checked. A file with faults is refused with the first 20 of them, each with its row and field. 413 as soon as a size
    limit is exceeded, while the file is still arriving.
    """
    settings = ctx.settings
    async with receive(request, max_bytes=settings.max_upload_bytes, max_row_bytes=settings.max_row_bytes) as arrived:
        record = await run_in_threadpool(ingest.store, ctx, arrived.path, arrived.filename)
    return serializers.file(record)


@router.get("/v1/files", summary="List the files")
def list_files(ctx: Ctx, after: After = None, limit: Limit = 100) -> Page[FileObject]:
    """Newest first."""
    with ctx.database.read() as c:
        records, has_more = files.list_(c, after, limit)
    return Page(data=tuple(map(serializers.file, records)), has_more=has_more)


@router.get("/v1/files/{file_id}", summary="Get a file")
def get_file(ctx: Ctx, file_id: FileId) -> FileObject:
    with ctx.database.read() as c:
        return serializers.file(files.get(c, file_id))


@router.delete("/v1/files/{file_id}", summary="Delete a file")
def delete_file(ctx: Ctx, file_id: FileId) -> Deleted:
    """409 while an active job uses it. Jobs that have ended keep their own copies of the rows."""
    ingest.delete(ctx, file_id)
    return Deleted(id=file_id, object="file")


@router.get("/v1/files/{file_id}/content", summary="Download a file as it was uploaded")
def file_content(ctx: Ctx, file_id: FileId) -> StreamingResponse:
    with ctx.database.read() as c:
        record = files.get(c, file_id)
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(record.filename, safe='')}",
        "Content-Length": str(record.bytes),
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(pieces(ctx.blobs.open(record.raw)), 200, headers, "application/octet-stream")


@router.get("/v1/datasets/{file_id}", summary="Get the profile of a dataset")
def get_dataset(ctx: Ctx, file_id: FileId) -> Dataset:
    """The profile that designs are proposed from: rows, lengths, duplicates, leaks between the splits."""
    with ctx.database.read() as c:
        return serializers.dataset(files.get(c, file_id))


@router.get("/v1/datasets/{file_id}/rows", summary="Get rows of a dataset")
def get_rows(
    ctx: Ctx,
    file_id: FileId,
    first: Annotated[int, Query(description="number of the first row, counted from 1", ge=1)] = 1,
    limit: Annotated[int, Query(description="rows on one page", ge=1, le=200)] = 20,
    contains: Annotated[str, Query(description="only rows that contain this text, ignoring case", max_length=200)] = "",
) -> DatasetRows:
    """The normalised rows, in the order of the file."""
    with ctx.database.read() as c:
        record = files.get(c, file_id)
    return rows_of(ctx, record, first, limit, contains)


@environments_router.get("/v1/environments", summary="List the environments")
def list_environments() -> Page[Environment]:
    """What `task.environment` of a job may name, with the JSON schema of each option. Installed packages add
    environments through the entry point group `luthier.environments`.
    """
    return Page(data=environments.listing())
