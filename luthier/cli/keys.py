"""`luthier keys`: API keys. The commands work directly on the store, because the API itself needs a key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.table import Table

from luthier.api_types import ApiKey
from luthier.cli.options import HomeOption, JsonOption, open_store, settings_of
from luthier.cli.show import as_json, console, errors
from luthier.keys import Scope, secret_of

if TYPE_CHECKING:
    from luthier.store import Connection  # imported late, because it takes seconds and other commands do not need it

app = typer.Typer(help="API keys. Once one exists, every request needs a key.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the key: its owner or its purpose.")],
    scope: Annotated[
        Scope, typer.Option(help="read < submit (jobs, files) < admin (models, keys); worker: for workers only.")
    ] = Scope.SUBMIT,
    days: Annotated[float | None, typer.Option(help="Days until it expires (default: never).")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Create a key and print it once; only its HMAC is stored. Once a key exists, every request needs one."""
    from service.auth import api_keys
    from service.http.error_handlers import explain
    from service.schemas.requests import AddKey

    try:
        wanted = AddKey(name=name, scope=scope, days=days)
    except ValidationError as error:
        raise explain([{**one, "loc": ("query", *one["loc"])} for one in error.errors()], None) from error
    with _store(home) as c:
        made = api_keys.issue(c, secret_of(settings_of(home=home)), wanted, datetime.now(UTC))
    if json:
        as_json(made)
        return
    console.print(made.key, highlight=False, soft_wrap=True)
    errors.print(
        f"Created {made.id} with scope {made.scope}. The key is shown only once: export LUTHIER_API_KEY={made.hint}",
        style="dim",
    )


@app.command(name="list")
def list_keys(home: HomeOption = None, json: JsonOption = False) -> None:
    """List the keys, without their secrets."""
    from service.auth import api_keys

    with _store(home) as c:
        found = api_keys.listed(c)
    if json:
        as_json(found)
        return
    table = Table(box=None, header_style="bold")
    for column in ("key", "name", "scope", "begins", "state", "last used"):
        table.add_column(column)
    for key in found:
        table.add_row(key.id, key.name, key.scope, key.hint, _state(key), _day(key.last_used_at) or "never")
    console.print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as `luthier keys list` shows it.")],
    home: HomeOption = None,
) -> None:
    """Revoke a key. Requests need a key even after the last one is revoked."""
    from service.auth import api_keys

    with _store(home) as c:
        key = api_keys.revoke(c, key_id, datetime.now(UTC))
    console.print(f"Revoked {key.name} ({key.hint}).")


@contextmanager
def _store(home: Path | None) -> Iterator[Connection]:
    with closing(open_store(settings_of(home=home))) as store, store.begin() as c:
        yield c


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {_day(key.revoked_at)}"
    if key.expires_at is None:
        return "live"
    return f"{'expired' if key.expires_at <= datetime.now(UTC).timestamp() else 'live until'} {_day(key.expires_at)}"


def _day(seconds: int | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds).astimezone():%d %b %Y %H:%M}"
