"""`luthier webhooks`: endpoints that receive events."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from luthier.cli.options import JsonOption, ServerOption, connect
from luthier.cli.show import as_json, console

app = typer.Typer(help="Endpoints that receive events.", no_args_is_help=True)

EndpointArgument = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Id of an endpoint.")]


@app.command(name="list")
def list_endpoints(server: ServerOption = None, json: JsonOption = False) -> None:
    """List the endpoints and the events that they receive."""
    with connect(server) as client:
        found = client.webhooks()
    if json:
        as_json(found)
        return
    table = Table(box=None, header_style="bold")
    for column in ("endpoint", "url", "events"):
        table.add_column(column, overflow="fold")
    for endpoint in found:
        table.add_row(endpoint.id, endpoint.url, " ".join(endpoint.events))
    console.print(table, markup=False)


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="URL that receives events by POST.")],
    event: Annotated[list[str] | None, typer.Option(help="Only this event; repeat for several (default: all).")] = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Send events to a URL. Prints, once, the secret that verifies their signatures."""
    with connect(server) as client:
        made = client.create_webhook(url, event)
    if json:
        as_json(made)
        return
    console.print(f"{made.id} sends events to {made.url}", highlight=False, markup=False)
    console.print(f"Secret (shown only once): {made.secret}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def remove(endpoint: EndpointArgument, server: ServerOption = None) -> None:
    """Delete an endpoint and its pending deliveries."""
    with connect(server) as client:
        client.delete_webhook(endpoint)
    console.print(f"Deleted {endpoint}.")


@app.command()
def deliveries(endpoint: EndpointArgument, server: ServerOption = None, json: JsonOption = False) -> None:
    """List the deliveries to an endpoint, newest first, including pending ones."""
    with connect(server) as client:
        found = client.webhook_deliveries(endpoint)
    if json:
        as_json(found)
        return
    table = Table(box=None, header_style="bold")
    for column in ("at", "event", "about", "state", "attempts", "latest error"):
        table.add_column(column, overflow="fold")
    for one in found:
        at = f"{datetime.fromtimestamp(one.created_at).astimezone():%d %b %H:%M:%S}"
        about = str(one.payload["data"]["id"])
        table.add_row(at, one.type, about, one.state, str(one.attempts), one.error or "")
    console.print(table, markup=False)
