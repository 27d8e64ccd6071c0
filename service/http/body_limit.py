"""A limit on the size of request bodies, checked while they arrive, for all routes that do not stream theirs."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luthier.errors import LuthierError, TooLarge, UserError
from service.http.error_handlers import respond

MAX_BODY_BYTES: Final = 16 * 2**20
STREAMED: Final = frozenset({("POST", "/v1/files"), ("PUT", "/v1/blobs")})


class BodyLimit:
    """ASGI middleware that reads the body before the application does, up to the limit."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"], scope["path"]) in STREAMED:
            await self._app(scope, receive, send)
            return
        try:
            if b"%00" in scope["raw_path"] or b"%00" in scope["query_string"]:
                raise UserError("The URL contains a NUL byte (%00), which is not allowed.")
            body = await _read(receive)
        except LuthierError as error:
            await respond(error)(scope, receive, send)
            return
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, replay, send)


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge(f"The body is larger than {MAX_BODY_BYTES:,} bytes, the limit of this route.")
        if not message.get("more_body", False):  # also when the client has disconnected
            return bytes(body)
