"""The gate that authenticates every request before it reaches a route.

Keys are needed once one was created, and whenever other machines can reach the service. Programs send
`Authorization: Bearer KEY`; browsers send a session cookie. `service.auth.scopes` says what a key allows.

While no key is needed, the service trusts the programs of its own machine, but not web pages that are opened there. It
accepts only the host names of this machine, against DNS rebinding. It refuses requests through a proxy and requests
that pages of other sites send.
"""

from __future__ import annotations

import hmac
import math
import time
from typing import cast
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from luthier import keys
from luthier.errors import Forbidden, LuthierError, TooManyRequests, Unauthenticated
from luthier.settings import Settings, is_loopback
from service.auth.scopes import READING, scope_of
from service.auth.sessions import ANYBODY, LOCAL_WORKER, OWNER, SESSION, Caller, key_of, keys_needed, session_of
from service.context import Context, utc_now
from service.dashboard.layout import error_page, wants_page
from service.http.error_handlers import Hangup, headers_of


class Gate:
    """ASGI middleware, which runs before anything reads a body. `worker_key`: the key of this process's own workers."""

    def __init__(self, app: ASGIApp, settings: Settings, worker_key: str) -> None:
        self._app = app
        self._worker_key = worker_key
        self._keys_needed = False
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(settings.requests_per_minute)
        self._attempts = RateLimitItemPerMinute(settings.attempts_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                await self._app(scope, receive, send)
            case "http":
                request = Request(scope)
                try:
                    request.state.caller = await self._admit(request)
                except LuthierError as error:
                    await _refusal(request, error)(scope, receive, send)
                else:
                    await self._app(scope, receive, send)
            case _:  # there are no websockets
                await send({"type": "websocket.close", "code": 1008})

    async def _admit(self, request: Request) -> Caller:
        """Raises Unauthenticated, Forbidden or TooManyRequests."""
        path = request.scope["path"]  # as the router sees it; that of `request.url` depends on the header Host
        needed = scope_of(request.method, path)
        _refuse_other_sites(request)
        if needed is None:
            if request.method not in READING:
                await self._count_attempt(request)
            return ANYBODY
        ctx = cast("Context", request.app.state.context)
        self._keys_needed = self._keys_needed or await run_in_threadpool(keys_needed, ctx)
        if not self._keys_needed:
            _refuse_others(request)
            return OWNER
        try:
            caller = await run_in_threadpool(self._identify, ctx, request)
        except Unauthenticated:
            if "authorization" in request.headers:
                await self._count_attempt(request)
            raise
        assert caller.scope is not None
        if caller.scope is not keys.Scope.WORKER:
            await self._count(self._requests, caller.id, "requests with one key")
        if not caller.scope.allows(needed):
            raise Forbidden(
                f"{request.method} {path} needs a key with scope `{needed}`; {caller.name} has `{caller.scope}`."
            )
        return caller

    def _identify(self, ctx: Context, request: Request) -> Caller:
        header = request.headers.get("authorization")
        if header is not None:
            scheme, _, rest = header.partition(" ")
            given = rest.strip()
            if scheme.lower() != "bearer":
                raise Unauthenticated(f"Send the key as `Authorization: Bearer KEY`, not with the scheme {scheme!r}.")
            if hmac.compare_digest(given.encode(), self._worker_key.encode()):
                return LOCAL_WORKER
            record = key_of(ctx, given, utc_now())
            return Caller(id=record.id, name=record.name, scope=record.scope)
        cookie = request.cookies.get(SESSION)
        if cookie is not None:
            record = session_of(ctx, cookie, utc_now())
            if request.method not in READING and not _same_site(request):
                raise Forbidden("The browser does not confirm that a page of this service sent the request.")
            return Caller(id=record.id, name=record.name, scope=record.scope, logged_in=True)
        raise Unauthenticated(
            "An API key is needed. Set LUTHIER_API_KEY, or send `Authorization: Bearer KEY`. Browsers log in at /login."
        )

    async def _count_attempt(self, request: Request) -> None:
        address = request.client.host if request.client else ""
        await self._count(self._attempts, address, "wrong keys and logins from one address")

    async def _count(self, limit: RateLimitItemPerMinute, whose: str, words: str) -> None:
        if await self._limiter.hit(limit, whose):
            return
        stats = await self._limiter.get_window_stats(limit, whose)
        wait = max(1, math.ceil(stats.reset_time - time.time()))
        raise TooManyRequests(
            f"At most {limit.amount} {words} are allowed per minute. Try again in {wait} s.", retry_after=wait
        )


def _refuse_others(request: Request) -> None:
    """Refuse requests through a proxy, or to a host name that is not this machine's. Applies while no key is needed."""
    sender, name = request.client.host if request.client else "", _host_name(request.headers.get("host", ""))
    if not is_loopback(sender):
        raise Forbidden(
            f"The request comes from {sender} through a proxy, which needs a key. Run `luthier keys create`."
        )
    if not is_loopback(name):
        raise Forbidden(
            f"Without keys the service accepts only host names of its own machine, not {name}. Use http://127.0.0.1, "
            "or create a key with `luthier keys create`."
        )


def _refuse_other_sites(request: Request) -> None:
    """Refuse changes that a page of another site sends from a browser."""
    if request.method not in READING and "origin" in request.headers and not _same_site(request):
        raise Forbidden(
            f"A page of {request.headers['origin']} sent the request. Other sites cannot make changes here."
        )


def _same_site(request: Request) -> bool:
    """Return whether the browser says that a page of this service sent the request. Other programs do not say."""
    if request.headers.get("sec-fetch-site") == "same-origin":
        return True
    host = request.headers.get("host", "")
    return host != "" and request.headers.get("origin", "").partition("://")[2] == host


def _host_name(host: str) -> str:
    """Return the host without its port; an IPv6 address without its brackets."""
    name, _, port = host.rpartition(":")
    bare = name if name and port.isdigit() else host
    return bare.removeprefix("[").removesuffix("]")


def _refusal(request: Request, error: LuthierError) -> Response:
    if isinstance(error, Unauthenticated) and wants_page(request):
        query = request.scope["query_string"].decode()
        there = request.scope["path"] + (f"?{query}" if query else "")
        return RedirectResponse(f"/login?next={quote(there if request.method in READING else '/', safe='')}", 303)
    if wants_page(request):
        return error_page(request, error, error.status, headers_of(error))
    unread = not {"content-length", "transfer-encoding"}.isdisjoint(request.headers.keys())
    return (Hangup if unread else JSONResponse)(error.body(), error.status, headers_of(error))
