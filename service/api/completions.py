"""Chat completions and text completions in OpenAI's format, whole or streamed as server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Body, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from luthier.api_types import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    Completion,
    CompletionChoice,
    CompletionUsage,
)
from luthier.errors import LuthierError
from luthier.worker_protocol import Answered
from service.context import Context, Ctx
from service.inference.broker import Replies, answer
from service.inference.model_names import Resolved, resolve
from service.schemas.completions import CreateChat, CreateCompletion, Sampling

router = APIRouter(prefix="/v1", tags=["Completions"])

STREAM: Final = "text/event-stream"
EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {STREAM: {}}, "description": "The completion; in chunks if `stream` is true"}
}
MESSAGE: Final = {"role": "user", "content": "Name three rivers."}
CHATS: Final = {
    "base": {"summary": "A base model", "value": {"model": "tiny-chat", "messages": [MESSAGE]}},
    "result": {
        "summary": "The result of a job, streamed",
        "value": {"model": "ft:tiny-chat:luthier:7c91d4aa", "messages": [MESSAGE], "stream": True, "temperature": 0},
    },
}
TEXTS: Final = {"base": {"summary": "Complete a text", "value": {"model": "tiny-chat", "prompt": "Once upon"}}}


@router.post("/chat/completions", summary="Chat with a model", response_model=ChatCompletion, responses=EVENTS)
async def create_chat(
    ctx: Ctx, request: Request, body: Annotated[CreateChat, Body(openapi_examples=CHATS)]
) -> ChatCompletion | StreamingResponse:
    """The model is a base model, the result of a job, or a trial whose weights are kept (see the job's checkpoints).

    The model's own chat template renders the conversation; for a model without one, a single message is used as it is.
    A worker generates the answer in a process that it starts for it: the first answer waits until the model is loaded.
    Closing the connection ends the answer. 503 if no worker is connected.
    """
    replies = await _ask(ctx, request, "chatcmpl", body)
    shape = _Chat(model=body.model, created=int(time.time()), counted=body.counted)
    if body.stream:
        return await _stream(shape, replies)
    generation_id, text, end = await _whole(replies)
    choice = ChatChoice(message=ChatMessage(content=text), finish_reason=end.finish_reason)
    return ChatCompletion(
        id=generation_id, created=shape.created, model=body.model, choices=(choice,), usage=_usage(end)
    )


@router.post("/completions", summary="Complete a text", response_model=Completion, responses=EVENTS)
async def create_completion(
    ctx: Ctx, request: Request, body: Annotated[CreateCompletion, Body(openapi_examples=TEXTS)]
) -> Completion | StreamingResponse:
    """OpenAI's older route: the text is used as it is, without a chat template. Otherwise like chat completions."""
    replies = await _ask(ctx, request, "cmpl", body)
    shape = _Text(model=body.model, created=int(time.time()), counted=body.counted)
    if body.stream:
        return await _stream(shape, replies)
    generation_id, text, end = await _whole(replies)
    choice = CompletionChoice(text=text, finish_reason=end.finish_reason)
    return Completion(id=generation_id, created=shape.created, model=body.model, choices=(choice,), usage=_usage(end))


class _Shape(Protocol):
    """The format of a streamed completion's chunks."""

    def opening(self, generation_id: str) -> list[BaseModel]: ...

    def piece(self, generation_id: str, text: str) -> BaseModel: ...

    def ending(self, generation_id: str, end: Answered) -> list[BaseModel]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chat:
    model: str
    created: int
    counted: bool

    def opening(self, generation_id: str) -> list[BaseModel]:
        return [self._chunk(generation_id, ChatChunkChoice(delta=ChatDelta(role="assistant", content="")))]

    def piece(self, generation_id: str, text: str) -> BaseModel:
        return self._chunk(generation_id, ChatChunkChoice(delta=ChatDelta(content=text)))

    def ending(self, generation_id: str, end: Answered) -> list[BaseModel]:
        last = self._chunk(generation_id, ChatChunkChoice(delta=ChatDelta(), finish_reason=end.finish_reason))
        return [last, self._chunk(generation_id, usage=_usage(end))] if self.counted else [last]

    def _chunk(self, generation_id: str, *choices: ChatChunkChoice, usage: CompletionUsage | None = None) -> ChatChunk:
        return ChatChunk(id=generation_id, created=self.created, model=self.model, choices=choices, usage=usage)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Text:
    model: str
    created: int
    counted: bool

    def opening(self, generation_id: str) -> list[BaseModel]:
        return []

    def piece(self, generation_id: str, text: str) -> BaseModel:
        return self._chunk(generation_id, CompletionChoice(text=text))

    def ending(self, generation_id: str, end: Answered) -> list[BaseModel]:
        last = self._chunk(generation_id, CompletionChoice(text="", finish_reason=end.finish_reason))
        return [last, self._chunk(generation_id, usage=_usage(end))] if self.counted else [last]

    def _chunk(
        self, generation_id: str, *choices: CompletionChoice, usage: CompletionUsage | None = None
    ) -> Completion:
        return Completion(id=generation_id, created=self.created, model=self.model, choices=choices, usage=usage)


async def _ask(ctx: Context, request: Request, prefix: str, body: CreateChat | CreateCompletion) -> Replies:
    to = await run_in_threadpool(_resolve, ctx, body)
    return answer(ctx, prefix, body.question(to.weights), request.is_disconnected)


def _resolve(ctx: Context, body: Sampling) -> Resolved:
    with ctx.database.read() as c:
        to = resolve(c, body.model)
    to.require_decoder()
    return to


async def _whole(replies: Replies) -> tuple[str, str, Answered]:
    text = ""
    async with aclosing(replies):
        async for generation_id, piece in replies:
            match piece:
                case str():
                    text += piece
                case Answered():
                    return generation_id, text, piece
    raise AssertionError("the last reply says how the answer ended")


async def _stream(shape: _Shape, replies: Replies) -> StreamingResponse:
    """The response starts with the first piece, so that an error before it has its own HTTP status."""
    first = await anext(replies)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(shape, first, replies), 200, headers, STREAM)


async def _events(shape: _Shape, first: tuple[str, str | Answered], replies: Replies) -> AsyncIterator[str]:
    generation_id, piece = first
    for chunk in shape.opening(generation_id):
        yield _event(chunk)
    async with aclosing(replies):
        try:
            while isinstance(piece, str):
                yield _event(shape.piece(generation_id, piece))
                _, piece = await anext(replies)
        except LuthierError as error:
            yield f"data: {json.dumps(error.body())}\n\n"
            return
    for chunk in shape.ending(generation_id, piece):
        yield _event(chunk)
    yield "data: [DONE]\n\n"


def _event(chunk: BaseModel) -> str:
    return f"data: {chunk.model_dump_json()}\n\n"


def _usage(end: Answered) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=end.prompt_tokens,
        completion_tokens=end.completion_tokens,
        total_tokens=end.prompt_tokens + end.completion_tokens,
    )
