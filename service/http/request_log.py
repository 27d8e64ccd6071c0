"""Give each request an id, time it and log it."""

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
_IDS: Final = ("job_id", "trial_id")  # path parameters that become fields of log lines
# Requests that come every few seconds are logged at debug level, unless they fail.
_FREQUENT: Final = frozenset(
    {"/healthz", "/readyz", "/metrics", "/v1/workers/{worker_id}/lease", "/v1/trials/{trial_id}/heartbeat"}
)
NO_ROUTE: Final = "none"  # logged for requests that match no route


class RequestLog:
    """ASGI middleware. A client may send an id in X-Request-Id; the response always has one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(_HEADER, "")
        request_id = given if _ID.fullmatch(given) else f"req_{secrets.token_hex(8)}"
        status = 500  # if there is no response at all

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
        route = str(getattr(scope.get("route"), "path", NO_ROUTE))
        self._metrics.requests.labels(scope["method"], route, str(status)).observe(seconds)
        ids = {name: value for name, value in scope.get("path_params", {}).items() if name in _IDS}
        logs.ACCESS.log(
            logging.DEBUG if route in _FREQUENT and status < 400 else logging.INFO,
            "%s %s %d",
            scope["method"],
            scope["path"],
            status,
            extra={"route": route, "status": status, "seconds": round(seconds, 4), **ids},
        )
