"""Each request gets an id, is timed, and is told of in the log."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luthier import logs
from service.integrations.prometheus import Metrics

_HEADER: Final = "x-request-id"
_ID: Final = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_IDS: Final = ("job_id", "trial_id")  # of the path that are fields of log lines
# What asks every few seconds is only told of where it goes wrong.
_PULSE: Final = frozenset(
    {"/healthz", "/readyz", "/metrics", "/v1/workers/{worker_id}/lease", "/v1/trials/{trial_id}/heartbeat"}
)
NOWHERE: Final = "none"  # as the route of requests that no route takes


class Observed:
    """ASGI middleware. A client may send the id along in X-Request-Id; the answer has it in any case."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(_HEADER, "")
        request_id = given if _ID.fullmatch(given) else f"req_{secrets.token_hex(8)}"
        status = 500  # where nothing is answered at all

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[_HEADER] = request_id
            await send(message)

        begun = time.perf_counter()
        with logs.about(request_id=request_id):
            try:
                await self._app(scope, receive, answer)
            finally:
                self._note(scope, status, time.perf_counter() - begun)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = str(getattr(scope.get("route"), "path", NOWHERE))
        self._metrics.requests.labels(scope["method"], route, str(status)).observe(seconds)
        ids = {name: value for name, value in scope.get("path_params", {}).items() if name in _IDS}
        logs.ACCESS.log(
            logging.DEBUG if route in _PULSE and status < 400 else logging.INFO,
            "%s %s %d",
            scope["method"],
            scope["path"],
            status,
            extra={"route": route, "status": status, "seconds": round(seconds, 4), **ids},
        )
