"""The options every client command shares, and the client they make."""

from __future__ import annotations

from typing import Annotated

import typer

from luthier.client import Client

DEFAULT_SERVER = "http://127.0.0.1:8420"

ServerOption = Annotated[
    str | None, typer.Option(envvar="LUTHIER_SERVER", help=f"URL of the service (default: {DEFAULT_SERVER}).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def connect(server: str | None) -> Client:
    return Client(server or DEFAULT_SERVER)
