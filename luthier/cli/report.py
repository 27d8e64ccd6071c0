"""`luthier report`: which design won, how reliable that is, and what to try next."""

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
        Form | None, typer.Option("--format", help="Default: by the extension of --output, else Markdown.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="File to write; an HTML report is one self-contained page."),
    ] = None,
    server: ServerOption = None,
) -> None:
    """Explain the result of a job: the winner, how reliable the result is, what else was tried, what to try next."""
    chosen = form or ENDINGS.get(output.suffix.lower() if output else "", Form.MARKDOWN)
    with connect(server) as client:
        text = _text(client, resolve(client, job), chosen)
    if output is not None:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{output} cannot be written: {error.strerror}.", param="--output") from error
        console.print(f"Wrote the report to {output}.")
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
