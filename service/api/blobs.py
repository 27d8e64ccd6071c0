"""Blobs: what workers fetch (rows, checkpoints) and leave (checkpoints, exports), named by their SHA-256."""

from __future__ import annotations

from typing import Annotated, BinaryIO, cast

from anyio import from_thread
from fastapi import APIRouter, Path, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from luthier.api_types import Resource
from luthier.errors import UserError
from service.api.files import pieces
from service.context import Ctx, utc_now

router = APIRouter(prefix="/v1/blobs", tags=["Workers"])

Digest = Annotated[str, Path(description="SHA-256 of the content, in hex")]


class StoredBlob(Resource):
    digest: str = Field(description="SHA-256 of the content, in hex")
    size: int = Field(description="bytes")


@router.put("", summary="Store a blob")
async def put_blob(ctx: Ctx, request: Request) -> StoredBlob:
    """The body is the content, of any length; it is there whole or not at all. Storing it twice is harmless."""
    try:
        digest, size = await run_in_threadpool(ctx.keep, cast("BinaryIO", _Body(request)))
    except ClientDisconnect as error:
        raise UserError("the connection ended before the blob did") from error
    return StoredBlob(digest=digest, size=size)


@router.get("/{digest}", summary="Fetch a blob")
def get_blob(ctx: Ctx, digest: Digest) -> StreamingResponse:
    size = ctx.blobs.size(digest)
    headers = {"Content-Length": str(size), "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(pieces(ctx.blobs.open(digest)), 200, headers, "application/octet-stream")


@router.head("/{digest}", summary="Ask whether a blob is there")
def head_blob(ctx: Ctx, digest: Digest) -> Response:
    """Whoever asks may be about to refer to it, so that it is spared from deletion for a while."""
    size = ctx.blobs.size(digest)
    ctx.garbage.wanted(digest, utc_now())
    return Response(headers={"Content-Length": str(size)}, media_type="application/octet-stream")


class _Body:
    """A request's body as a stream for a thread to read, so that it goes from the network straight into the blob."""

    def __init__(self, request: Request) -> None:
        self._chunks = request.stream()

    def read(self, size: int) -> bytes:
        """The next piece, whatever its size; empty at the end."""
        return from_thread.run(anext, self._chunks, b"")
