"""`luthier environments`, and the options of `submit` that name one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from luthier.cli.options import JsonOption, ServerOption, connect
from luthier.cli.show import as_json, console
from luthier.errors import UserError


def list_environments(server: ServerOption = None, json: JsonOption = False) -> None:
    """List the RL environments, with their options and defaults."""
    with connect(server) as client:
        found = client.environments()
    if json:
        as_json(found)
        return
    table = Table(box=None, header_style="bold")
    table.add_column("environment", no_wrap=True)
    table.add_column("task")
    table.add_column("options", overflow="fold")
    for environment in found:
        options = " ".join(f"{name}={_default(schema)}" for name, schema in environment.options.items())
        table.add_row(environment.name, environment.summary, options)
    console.print(table, markup=False)


def read_environment(name: str | None, options: Sequence[str], rows: int | None) -> dict[str, Any] | None:
    """Return the environment as JSON; the service validates it. Raises UserError for options without --environment."""
    if name is None:
        if options or rows is not None:
            raise UserError("--option and --rows need --environment.", param="--environment")
        return None
    count = {} if rows is None else {"rows": rows}
    return {"name": name, "options": dict(map(_option, options)), **count}


def _option(given: str) -> tuple[str, Any]:
    """Split NAME=VALUE. The value is parsed as JSON if possible, else it is the text."""
    name, equals, value = given.partition("=")
    if not (name and equals):
        raise UserError(f"--option must be NAME=VALUE, not {given!r}.", param="--option")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _default(schema: dict[str, Any]) -> str:
    return json.dumps(schema["default"], ensure_ascii=False) if "default" in schema else "…"
