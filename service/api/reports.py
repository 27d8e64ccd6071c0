"""The report of a job as JSON, HTML or Markdown."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from luthier.report import Report
from service.context import Ctx
from service.results import report as evidence
from service.results.report_html import as_html, as_markdown
from service.schemas.params import JobId

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["Results"])

Form = Literal["json", "html", "markdown"]
MEDIA: Final[dict[Form, str]] = {"json": "application/json", "html": "text/html", "markdown": "text/markdown"}
# The page loads nothing: markup from a dataset, should any get through, can load nothing either.
CLOSED: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
CONTENT: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {MEDIA["html"]: {}, MEDIA["markdown"]: {}}, "description": "The report in the requested format"}
}


@router.get("/report", summary="Get the report", response_model=Report, responses=CONTENT)
def get_report(
    ctx: Ctx,
    request: Request,
    job_id: JobId,
    form: Annotated[
        Form | None,
        Query(
            alias="format",
            description="`json`, `html` (one self-contained page) or `markdown`; left out: what the Accept header "
            "prefers",
        ),
    ] = None,
) -> Report | Response:
    """Which design won and how reliable that is, how important each axis was, what was tried and rejected and why, and
    what to try next. While a job runs, and for a job that failed or was cancelled, the report covers the trials so far;
    `missing` lists what is not known.
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
    """Return the format that the header prefers, by quality and then by position; JSON where it names none."""
    wanted: list[tuple[float, Form]] = []
    for part in header.split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        text = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        try:
            quality = float(text)
        except ValueError:
            quality = 0.0
        wanted += [(quality, form) for form, media in MEDIA.items() if media == kind.lower()]
    best = max((quality for quality, _ in wanted), default=0.0)
    return next((form for quality, form in wanted if quality == best and quality > 0), "json")
