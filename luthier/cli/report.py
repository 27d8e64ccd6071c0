"""`luthier report`: which design won, how sure that is, and what to try next."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from luthier.cli.jobs import JobArgument, resolve
from luthier.cli.options import ServerOption, connect
from luthier.cli.show import console
from luthier.client import Client
from luthier.errors import UserError


class Form(StrEnum):
    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"


ENDINGS = {".html": Form.HTML, ".htm": Form.HTML, ".json": Form.JSON}


def report(
    job: JobArgument,
    form: Annotated[
        Form | None, typer.Option("--format", help="Default: by the ending of --output, else Markdown.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Write it here; an HTML page needs nothing else."),
    ] = None,
    server: ServerOption = None,
) -> None:
    """Explain a job's result: the winner along the four axes, how sure it is, what else was tried, and what is next."""
    chosen = form or ENDINGS.get(output.suffix.lower() if output else "", Form.MARKDOWN)
    with connect(server) as client:
        text = _text(client, resolve(client, job), chosen)
    if output is not None:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{output} cannot be written: {error.strerror}", param="--output") from error
        console.print(f"wrote the report to {output}")
    elif chosen is Form.MARKDOWN and console.is_terminal:
        console.print(Markdown(text))
    else:
        print(text)


def _text(client: Client, job_id: str, form: Form) -> str:
    match form:
        case Form.JSON:
            return client.report(job_id).model_dump_json(indent=2)
        case Form.HTML:
            return client.report_page(job_id, "html")
        case Form.MARKDOWN:
            return client.report_page(job_id, "markdown")
