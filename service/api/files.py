"""What a job trains on: dataset files, checked row by row when they are uploaded, and environments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO, Final
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from luthier.api_types import Dataset, DatasetRows, Deleted, Environment, FileObject, Page
from luthier.store import files
from luthier.store.rows import FileRecord
from service.api.params import After, Limit
from service.context import Context, Ctx
from service.datasets import environments
from service.datasets.ingest import take_in
from service.datasets.multipart import Upload, receive
from service.results import serializers

router = APIRouter(tags=["Files"])
environments_router = APIRouter(tags=["Environments"])

FileId = Annotated[str, Path(description="id of an uploaded file", examples=["file-5f2ab0"])]

CHUNK: Final = 1 << 20

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
    """Takes JSON Lines, a JSON array, CSV, Parquet, plain text or Markdown.

    Rows may be `text`; `prompt` + `completion`; `messages` (+ `tools`); alpaca's `instruction`, `input`, `output`;
    ShareGPT's `conversations`; preferences as `prompt`, `chosen`, `rejected` or in OpenAI's form. Every row is checked:
    a file with faults is refused with the first 20 of them, each with its row and field. 413 as soon as a limit is
    passed, while the file is still arriving.
    """
    settings = ctx.settings
    async with receive(request, max_bytes=settings.max_upload_bytes, max_row_bytes=settings.max_row_bytes) as arrived:
        record = await run_in_threadpool(_take_in, ctx, arrived)
    return serializers.file(record)


@router.get("/v1/files", summary="List the datasets")
def list_files(ctx: Ctx, after: After = None, limit: Limit = 100) -> Page[FileObject]:
    with ctx.database.read() as c:
        records, has_more = files.list_(c, after, limit)
    return Page(data=tuple(map(serializers.file, records)), has_more=has_more)


@router.get("/v1/files/{file_id}", summary="Look at one file")
def get_file(ctx: Ctx, file_id: FileId) -> FileObject:
    with ctx.database.read() as c:
        return serializers.file(files.get(c, file_id))


@router.delete("/v1/files/{file_id}", summary="Delete a file")
def delete_file(ctx: Ctx, file_id: FileId) -> Deleted:
    """409 while a job that has not ended uses it. Jobs that have ended keep their own copies of the rows."""
    with ctx.database.begin() as c:
        record = files.get(c, file_id)
        files.delete(c, file_id)
    ctx.garbage.condemn({record.raw, record.rows})
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


@router.get("/v1/datasets/{file_id}", summary="What is in a dataset")
def get_dataset(ctx: Ctx, file_id: FileId) -> Dataset:
    """The profile that designs are proposed from: rows, lengths, repeats, leaks."""
    with ctx.database.read() as c:
        return serializers.dataset(files.get(c, file_id))


@router.get("/v1/datasets/{file_id}/rows", summary="Read rows of a dataset")
def get_rows(
    ctx: Ctx,
    file_id: FileId,
    first: Annotated[int, Query(description="number of the first row, counted from 1", ge=1)] = 1,
    limit: Annotated[int, Query(description="rows on one page", ge=1, le=200)] = 20,
    contains: Annotated[
        str, Query(description="only rows in which this stands, whatever its case", max_length=200)
    ] = "",
) -> DatasetRows:
    """As they were normalised, in the order of the file."""
    with ctx.database.read() as c:
        record = files.get(c, file_id)
    return rows_of(ctx, record, first, limit, contains)


def rows_of(ctx: Context, record: FileRecord, first: int, limit: int, contains: str = "") -> DatasetRows:
    """A page of a file's rows. The file is read through each time, and no more of it is parsed than needed."""
    wanted, shown, total = contains.casefold(), list[tuple[int, Any]](), 0
    with ctx.blobs.open(record.rows) as stream:
        for number, line in enumerate(stream, start=1):
            row = json.loads(line) if wanted else None
            if wanted and wanted not in json.dumps(row, ensure_ascii=False).casefold():
                continue
            total += 1
            if first <= total < first + limit:
                shown.append((number, json.loads(line) if row is None else row))
    return DatasetRows(
        data=tuple(row for _, row in shown),
        numbers=tuple(number for number, _ in shown),
        first=first,
        total=total,
        has_more=first + limit <= total,
    )


def pieces(stream: BinaryIO) -> Iterator[bytes]:
    """The content of a blob, a piece at a time; closes it."""
    with stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def _take_in(ctx: Context, upload: Upload) -> FileRecord:
    record = take_in(ctx, upload.path, upload.filename)
    with ctx.database.begin() as c:
        files.insert(c, record)
    return record


@environments_router.get("/v1/environments", summary="List the environments")
def list_environments() -> Page[Environment]:
    """What `task.environment` of a job may name, with the JSON schema of each option. Packages that are installed
    beside Luthier add theirs through the entry point group `luthier.environments`.
    """
    return Page(data=environments.listing())
