"""Turn errors into responses: in OpenAI's format, with a message that says what to do, never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import anyio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from luthier.errors import LuthierError, NotFound, TooLarge, TooManyRequests, Unauthenticated, UserError
from service.dashboard.layout import error_page, wants_page

log = logging.getLogger(__name__)

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 8 * 2**20

SHOWN_PROBLEMS: Final = 5
SHOWN_CHARACTERS: Final = 80

# What each pydantic error type expected; `{x}` are fields of the error's context.
EXPECTED: Final[Mapping[str, str]] = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string",
    "string_unicode": "a string of valid Unicode",
    "string_too_short": "at least {min_length} character(s)",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "a string that matches {pattern}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "union_tag_invalid": "one of {expected_tags} as its type",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
    "datetime_type": "a date and time, e.g. 2030-01-31T18:00:00Z",
    "datetime_parsing": "a date and time, e.g. 2030-01-31T18:00:00Z",
    "datetime_from_date_parsing": "a date and time, e.g. 2030-01-31T18:00:00Z",
    "expected": "{expected}",
    "timezone_aware": "a time zone, e.g. 2030-01-31T18:00:00Z",
}


def install(app: FastAPI) -> None:
    """Register the handlers."""

    @app.exception_handler(LuthierError)
    def luthier_error(request: Request, error: LuthierError) -> Response:
        if error.status >= 500:
            log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
        return _answer(request, error)

    @app.exception_handler(RequestValidationError)
    def invalid_request(request: Request, error: RequestValidationError) -> Response:
        return _answer(request, explain(error.errors(), error.body))

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        problem = _translate(request, error)
        if wants_page(request):
            return error_page(request, problem, error.status_code, error.headers)
        return JSONResponse(problem.body(), status_code=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        log.error("%s %s failed: %r", request.method, request.url.path, error)  # the server logs the traceback
        return _answer(request, LuthierError("internal error; the log of the service has the details"))


def _answer(request: Request, error: LuthierError) -> Response:
    """Return the error as a page to a browser, else as JSON."""
    return error_page(request, error, error.status, headers_of(error)) if wants_page(request) else respond(error)


class Hangup(JSONResponse):
    """A response sent while the request's body is still arriving. The connection closes after it.

    It keeps reading for a moment before it closes. Closing a connection with unread data resets it, and the reset can
    overtake the response.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        left = LINGER_BYTES
        with anyio.move_on_after(LINGER_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    break
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def respond(error: LuthierError) -> JSONResponse:
    """The response for an error."""
    kind = Hangup if isinstance(error, TooLarge) else JSONResponse
    return kind(error.body(), error.status, headers_of(error))


def headers_of(error: LuthierError) -> dict[str, str]:
    """Return the HTTP headers that belong to an error."""
    match error:
        case Unauthenticated():
            return {"WWW-Authenticate": "Bearer"}
        case TooManyRequests(retry_after=seconds):
            return {"Retry-After": str(seconds)}
        case _:
            return {}


def explain(problems: Sequence[Mapping[str, Any]], body: Any) -> UserError:
    """Return one error for the validation problems. It names each field, what was expected and what was found."""
    lines = [_line(problem, _field(problem["loc"], body)) for problem in problems]
    more = [f"and {len(lines) - SHOWN_PROBLEMS} more"] if len(lines) > SHOWN_PROBLEMS else []
    return UserError("; ".join(lines[:SHOWN_PROBLEMS] + more), param=_field(problems[0]["loc"], body) or None)


def _line(problem: Mapping[str, Any], field: str) -> str:
    kind = problem["type"]
    context = {k: f"{v:g}" if isinstance(v, float) else v for k, v in (problem.get("ctx") or {}).items()}
    if kind == "json_invalid":
        return f"the body is not valid JSON: {context.get('error', 'it cannot be parsed')}"
    if not field:
        return "the body is empty; expected a JSON object" if kind == "missing" else "the body must be a JSON object"
    if kind == "missing":
        return f"{field} is missing"
    if kind == "extra_forbidden":
        return f"unknown field {field}"
    if kind == "union_tag_not_found":
        return f"{field} needs a field {context['discriminator']} that names its kind"
    found = _shown(problem.get("input"))
    if kind in EXPECTED:
        return f"{field} must be {EXPECTED[kind].format(**context)}, not {found}"
    return f"{field}: {problem['msg']}, found {found}"


def _field(location: Sequence[str | int], body: Any) -> str:
    """Return the path of the field in the request, without the union members that pydantic inserts."""
    where, *steps = location
    if where != "body":
        return ".".join(map(str, steps))
    parts: list[str] = []
    for position, step in enumerate(steps):
        last = position == len(steps) - 1
        if isinstance(body, dict) and (step in body or last):
            parts.append(str(step))
            body = body.get(step)
        elif isinstance(body, list) and isinstance(step, int):
            parts.append(str(step))
            body = body[step]
    return ".".join(parts)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _translate(request: Request, error: HTTPException) -> UserError:
    match error.status_code:
        case 404:
            return NotFound(f"unknown route {request.method} {request.url.path}; see the API at /docs")
        case 405:
            return UserError(f"{request.url.path} does not support {request.method}; see the API at /docs")
        case _:
            return UserError(f"the request cannot be parsed: {error.detail}")
