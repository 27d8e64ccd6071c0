"""The console script `luthier`. Exit codes: 0 success, 1 the job or the command failed, 2 wrong usage."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer

from luthier.cli import aliases, cells, environment, jobs, keys, models, report, schedules, serving, webhooks, whatif
from luthier.cli.show import errors
from luthier.errors import LuthierError, UserError


def print_version(asked: bool) -> None:
    """Print the installed version and exit."""
    if asked:
        typer.echo(f"luthier {metadata.version('luthier')}")
        raise typer.Exit


def luthier(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that come before the command."""


app = typer.Typer(
    name="luthier",
    help="Fine-tune language models: submit a dataset, and Luthier searches for the best design and trains it.",
    epilog="Start with `luthier serve` in one terminal and `luthier models add NAME FOLDER` in another, then continue "
    "with docs/start.md. `luthier COMMAND --help` explains a command.",
    callback=luthier,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.callback()(luthier)
app.command()(serving.serve)
app.command()(serving.worker)
app.add_typer(serving.database, name="db")
app.command()(jobs.submit)
app.command(name="jobs")(jobs.list_jobs)
app.command()(jobs.trials)
app.command()(jobs.best)
app.command()(report.report)
app.command()(jobs.export)
app.command()(jobs.generate)
app.command()(jobs.cancel)
app.command()(jobs.pause)
app.command()(jobs.resume)
app.command()(jobs.extend)
app.command(name="environments")(environment.list_environments)
app.add_typer(models.app, name="models")
app.command()(cells.cells)
app.command(name="what-if")(whatif.what_if)
app.add_typer(schedules.app, name="schedules")
app.add_typer(aliases.app, name="aliases")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Run the command line. Errors become one line on standard error and an exit code."""
    try:
        app(prog_name="luthier")
    except UserError as error:
        errors.print(f"[red]error:[/red] {error.message}", highlight=False)
        sys.exit(2)
    except LuthierError as error:
        errors.print(f"[red]error:[/red] {error.message}", highlight=False)
        sys.exit(1)
