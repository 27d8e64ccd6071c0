"""`luthier aliases`: stable names for the best model so far."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from luthier.api_types import Alias
from luthier.cli.options import JsonOption, ServerOption, connect
from luthier.cli.show import as_json, console

app = typer.Typer(help="Stable names for the best model so far.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="ALIAS", help="Name of an alias, without `alias/`.")]


@app.command(name="list")
def list_aliases(server: ServerOption = None, json: JsonOption = False) -> None:
    """List the aliases and their models."""
    with connect(server) as client:
        found = client.aliases()
    if json:
        as_json(found)
        return
    table = Table(box=None, header_style="bold")
    for column in ("alias", "model", "since", "by"):
        table.add_column(column, overflow="fold")
    for alias in found:
        table.add_row(alias.id, alias.model, _moment(alias.versions[0].created_at), alias.versions[0].origin)
    console.print(table, markup=False)


@app.command()
def history(alias: NameArgument, server: ServerOption = None, json: JsonOption = False) -> None:
    """Show all versions of an alias, the latest first, and why each was set."""
    with connect(server) as client:
        found = client.alias(alias)
    if json:
        as_json(found.versions)
        return
    table = Table(box=None, header_style="bold")
    for column in ("version", "model", "since", "by", "why"):
        table.add_column(column, overflow="fold")
    for one in found.versions:
        why = one.contest.why if one.contest else ""
        table.add_row(str(one.version), one.model, _moment(one.created_at), one.origin, why)
    console.print(table, markup=False)


@app.command(name="set")
def set_alias(
    alias: NameArgument,
    model: Annotated[str, typer.Argument(help="A fine-tuned model; see `luthier models list`.")],
    server: ServerOption = None,
) -> None:
    """Point an alias to a fine-tuned model."""
    with connect(server) as client:
        _say(client.set_alias(alias, model))


@app.command()
def rollback(alias: NameArgument, server: ServerOption = None) -> None:
    """Point an alias to its previous model."""
    with connect(server) as client:
        _say(client.roll_back(alias))


@app.command()
def remove(alias: NameArgument, server: ServerOption = None) -> None:
    """Delete an alias and its history; the models are kept."""
    with connect(server) as client:
        client.delete_alias(alias)
    console.print(f"Deleted alias/{alias}.")


def _say(alias: Alias) -> None:
    console.print(f"{alias.id} points to {alias.model}.", highlight=False, markup=False)


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%d %b %Y %H:%M}"
