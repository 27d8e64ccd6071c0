"""Completions where LUTHIER_VLLM_URL is set: requests are forwarded to that server unchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

import httpx
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from luthier.errors import Unreachable
from service.context import Context, Ctx

router = APIRouter(prefix="/v1", tags=["Completions"])

PATIENCE: Final = httpx.Timeout(30.0, read=600.0)


@router.post("/chat/completions", summary="Chat with a model")
async def create_chat(ctx: Ctx, request: Request) -> StreamingResponse:
    """Forwarded to the server at LUTHIER_VLLM_URL, with its own model names and fields. Closing the connection closes
    the one to that server."""
    return await _forward(ctx, request, "chat/completions")


@router.post("/completions", summary="Complete a text")
async def create_completion(ctx: Ctx, request: Request) -> StreamingResponse:
    """Forwarded to the server at LUTHIER_VLLM_URL."""
    return await _forward(ctx, request, "completions")


async def _forward(ctx: Context, request: Request, path: str) -> StreamingResponse:
    settings = ctx.settings
    assert settings.vllm_url is not None, "this router is only included where it is set"
    url = f"{settings.vllm_url.rstrip('/')}/{path}"
    headers = {"content-type": request.headers.get("content-type", "application/json")}
    if settings.vllm_api_key is not None:
        headers["authorization"] = f"Bearer {settings.vllm_api_key.get_secret_value()}"
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=PATIENCE, trust_env=False))
        sent = client.build_request("POST", url, content=await request.body(), headers=headers)
        try:
            answer = await client.send(sent, stream=True)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"the server at LUTHIER_VLLM_URL, {url}, does not respond: {reason}") from error
        stack.push_async_callback(answer.aclose)
        kind = answer.headers.get("content-type", "application/json")
        return StreamingResponse(_body(answer, stack.pop_all()), answer.status_code, media_type=kind)


async def _body(answer: httpx.Response, opened: AsyncExitStack) -> AsyncIterator[bytes]:
    async with opened:
        async for chunk in answer.aiter_bytes():
            yield chunk
