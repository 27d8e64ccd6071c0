"""Blobs, named by their SHA-256: what workers download (rows, checkpoints) and upload (checkpoints, weights)."""

from __future__ import annotations

from typing import BinaryIO, cast

from anyio import from_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from luthier.api_types import Resource
from luthier.errors import UserError
from service.api.downloads import pieces
from service.context import Ctx, utc_now
from service.schemas.params import Digest

router = APIRouter(prefix="/v1/blobs", tags=["Workers"])


class StoredBlob(Resource):
    digest: str = Field(description="SHA-256 of the content, in hex")
    size: int = Field(description="bytes")


@router.put("", summary="Store a blob")
async def put_blob(ctx: Ctx, request: Request) -> StoredBlob:
    """The body is the content, of any length. It is stored completely or not at all. Repeating the request is
    harmless."""
    try:
        digest, size = await run_in_threadpool(ctx.store_blob, cast("BinaryIO", _Body(request)))
    except ClientDisconnect as error:
        raise UserError("the connection closed before the whole blob was received") from error
    return StoredBlob(digest=digest, size=size)


@router.get("/{digest}", summary="Get a blob")
def get_blob(ctx: Ctx, digest: Digest) -> StreamingResponse:
    size = ctx.blobs.size(digest)
    headers = {"Content-Length": str(size), "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(pieces(ctx.blobs.open(digest)), 200, headers, "application/octet-stream")


@router.head("/{digest}", summary="Check whether a blob is stored")
def head_blob(ctx: Ctx, digest: Digest) -> Response:
    """The blob is kept from deletion for a while, as the client may be about to refer to it."""
    size = ctx.blobs.size(digest)
    ctx.garbage.mark_used(digest, utc_now())
    return Response(headers={"Content-Length": str(size)}, media_type="application/octet-stream")


class _Body:
    """A request's body as a file that a thread reads, so that it is streamed from the network into the blob."""

    def __init__(self, request: Request) -> None:
        self._chunks = request.stream()

    def read(self, size: int) -> bytes:
        """Return the next chunk, whatever its size; empty at the end."""
        return from_thread.run(anext, self._chunks, b"")
