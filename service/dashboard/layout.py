"""The frame of all pages, template filters, messages after a redirect, and error pages.

A page is `page(request, "name.html.jinja", title=…, …)`; its template extends base.html.jinja. Scripts come only from
static files: the content security policy forbids inline scripts, so that text from users never runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.routing import Match

from luthier.errors import LuthierError
from luthier.keys import Scope
from luthier.metrics import cell, seeds_count
from search.format import millions
from service.auth.scopes import scope_of
from service.auth.sessions import ANYBODY, Caller
from service.dashboard import assets

FLASH: Final = "luthier_flash"  # cookie with a message for the next page
FLASH_SECONDS: Final = 60
THEME: Final = "luthier_theme"  # cookie with the colour theme, set by static/shell.js
THEMES: Final = ("light", "dark")

HEADERS: Final = {
    # Templates use style attributes. Scripts come only from this service.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Place(NamedTuple):
    name: str
    path: str


# Shown only if the page exists and the caller has the scope for it.
NAVIGATION: Final = (
    Place("Jobs", "/"),
    Place("New job", "/new"),
    Place("Datasets", "/datasets"),
    Place("Models", "/models"),
    Place("Schedules", "/schedules"),
    Place("Workers", "/workers"),
    Place("Playground", "/playground"),
    Place("Access", "/access"),
)


def page(request: Request, template: str, *, title: str, status: int = 200, **values: Any) -> Response:
    """Render a page. `title` is shown in the browser tab."""
    said = request.cookies.get(FLASH)
    theme = request.cookies.get(THEME)
    frame = {
        "title": title,
        "places": [place for place in NAVIGATION if _exists(request, place.path) and _allowed(request, place.path)],
        "here": _section(request.url.path),
        "exists": partial(_exists, request),
        "flash": None if said is None else unquote(said),
        "theme": theme if theme in THEMES else None,
        "logged_in": _caller(request).logged_in,
    }
    response = HTMLResponse(_TEMPLATES.get_template(template).render(**values, **frame), status, HEADERS)
    if said is not None:
        response.delete_cookie(FLASH)
    return response


def redirect(path: str, say: str | None = None) -> Response:
    """Redirect to a page after an action. The page shows the message `say` once."""
    response = RedirectResponse(path, 303)
    if say is not None:
        response.set_cookie(FLASH, quote(say), max_age=FLASH_SECONDS, httponly=True, samesite="strict")
    return response


def wants_page(request: Request) -> bool:
    """Return whether a browser asks for a page, and not for the API."""
    asked = request.headers.get("accept", "")
    return "text/html" in asked and not request.url.path.startswith("/v1/")


def error_page(
    request: Request, error: LuthierError, status: int, headers: Mapping[str, str] | None = None
) -> Response:
    """Render an error as a page."""
    phrase = HTTPStatus(status).phrase
    response = page(request, "error.html.jinja", title=phrase, status=status, error=error, phrase=phrase, code=status)
    response.headers.update(headers or {})
    return response


def _section(path: str) -> str:
    """Return the navigation entry that a path belongs to, or an empty string."""
    first = "/" + path.split("/")[1]
    return next((place.path for place in NAVIGATION if place.path == first), "/" if first == "/jobs" else "")


def _caller(request: Request) -> Caller:
    """Return the authenticated caller. Error pages for rejected requests have none."""
    return getattr(request.state, "caller", ANYBODY)


def _allowed(request: Request, path: str) -> bool:
    needed, scope = scope_of("GET", path), _caller(request).scope
    return needed in (None, Scope.READ) or (scope is not None and scope.allows(needed))


def _exists(request: Request, path: str) -> bool:
    scope = {"type": "http", "method": "GET", "path": path, "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def _moment(value: datetime | int | None) -> str:
    """Return an ISO 8601 time in UTC for the attribute `datetime`; static/shell.js shows it in local time."""
    if value is None:
        return ""
    moment = value if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _day(value: datetime | int) -> str:
    moment = value if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)
    return f"{moment:%d %b %Y, %H:%M} UTC"


def duration(seconds: float | None) -> str:
    """Format seconds: 0.4 s, 42 s, 3 min 10 s, 5 min, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return "–"
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def percent(change: float | None) -> str:
    """Format a relative change with its sign."""
    return "–" if change is None else f"{100 * change:+.1f} %".replace("-", "−")


def _size(value: int | None) -> str:
    return "–" if value is None else millions(value)


def _bytes(value: int | None) -> str:
    if value is None:
        return "–"
    size, units = float(value), ["B", "KB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" or size >= 100 else f"{size:.3g} {units[0]}"


def _short(identifier: str) -> str:
    """Shorten an id: ftjob-1a2b3c."""
    kind, dash, rest = identifier.rpartition("-")
    return f"{kind}{dash}{rest[:6]}"


def _count(value: int) -> str:
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=select_autoescape(("html.jinja",), default=True),
)
_TEMPLATES.filters |= {
    "moment": _moment,
    "day": _day,
    "duration": duration,
    "score": cell,
    "seeds": seeds_count,
    "percent": percent,
    "size": _size,
    "bytes": _bytes,
    "short": _short,
    "count": _count,
}
_TEMPLATES.globals |= {"asset": assets.address}
