"""The report of a job, for programs and for people."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from luthier.report import Report
from service.api.jobs import JobId
from service.context import Ctx
from service.results import report as evidence
from service.results.report_html import as_html, as_markdown

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["Results"])

Form = Literal["json", "html", "markdown"]
MEDIA: Final[dict[Form, str]] = {"json": "application/json", "html": "text/html", "markdown": "text/markdown"}
# The page needs nothing from anywhere; should markup of somebody else's ever get into it, it gets no further.
CLOSED: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
CONTENT: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {MEDIA["html"]: {}, MEDIA["markdown"]: {}}, "description": "The report in the form asked for"}
}


@router.get("/report", summary="Read the report", response_model=Report, responses=CONTENT)
def get_report(
    ctx: Ctx,
    request: Request,
    job_id: JobId,
    form: Annotated[
        Form | None,
        Query(
            alias="format",
            description="`json`, `html` (one page that needs nothing else) or `markdown`; left out: what the header "
            "Accept prefers",
        ),
    ] = None,
) -> Report | Response:
    """Which design won and how sure that is, what each axis was worth, what was tried and rejected and why, and what to
    try next. While a job runs, and of one that failed or was cancelled, as far as it came; `missing` says what is not
    known.
    """
    report = evidence.report(ctx, job_id)
    match form or _accepted(request.headers.get("accept", "")):
        case "html":
            return Response(as_html(report), headers=CLOSED, media_type="text/html; charset=utf-8")
        case "markdown":
            return Response(as_markdown(report), media_type="text/markdown; charset=utf-8")
        case _:
            return report


def _accepted(header: str) -> Form:
    """The form whose media type comes first in the header, by quality and then by place; JSON where it names none."""
    wanted: list[tuple[float, Form]] = []
    for part in header.split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        named: list[Form] = [form for form, media in MEDIA.items() if media == kind.lower()]
        wanted += [(_number(quality), form) for form in named]
    best = max((quality for quality, _ in wanted), default=0.0)
    return next((form for quality, form in wanted if quality == best and quality > 0), "json")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
