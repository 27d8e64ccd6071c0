"""Logging in to the pages with an API key. A session has the scope of its key."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, Response

from luthier.errors import Unauthenticated
from luthier.keys import Scope
from service.auth.sessions import SESSION, SESSION_SECONDS, key_of, keys_needed, session
from service.context import Ctx, utc_now
from service.dashboard.layout import page, redirect

router = APIRouter(include_in_schema=False)

# A path of this service. Browsers drop control characters, read \ as /, and treat // as the start of a host name.
INSIDE: Final = re.compile(r"/(?![/\\])[^\x00-\x20\\]*")


@router.get("/login")
def show(request: Request, ctx: Ctx, next: str = "/") -> Response:  # noqa: A002 - the usual name
    if not keys_needed(ctx):
        return redirect(_inside(next))
    return _form(request, next)


@router.post("/login")
def log_in(
    request: Request,
    ctx: Ctx,
    key: Annotated[str, Form()],
    next: Annotated[str, Form()] = "/",  # noqa: A002
) -> Response:
    try:
        record = key_of(ctx, key.strip(), utc_now())
    except Unauthenticated as error:
        return _form(request, next, error.message)
    if record.scope is Scope.WORKER:
        return _form(request, next, "This key has the scope worker and gives no access to the pages.")
    response = redirect(_inside(next))
    secure = request.url.scheme == "https"
    cookie = session(ctx, record)
    response.set_cookie(SESSION, cookie, max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=secure)
    return response


@router.post("/logout")
def log_out() -> Response:
    response = redirect("/login")
    response.delete_cookie(SESSION, httponly=True, samesite="strict")
    return response


def _form(request: Request, where: str, problem: str | None = None) -> Response:
    status = 200 if problem is None else 401
    values = {"where": _inside(where), "problem": problem}
    return page(request, "login.html.jinja", title="Log in", status=status, **values)


def _inside(where: str) -> str:
    """Return the path to open after login; / if it leads to another site."""
    return where if INSIDE.fullmatch(where) else "/"
