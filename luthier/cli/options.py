"""Options and helpers that commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from luthier.client import Client
from luthier.errors import UserError
from luthier.settings import Settings

if TYPE_CHECKING:
    from luthier.store.database import Database


def read_object(given: str, option: str) -> dict[str, Any]:
    """Return the JSON object of an option or of its @FILE. Raises UserError; the service validates the fields."""
    if given.startswith("@"):
        return _parse(_content(Path(given[1:]), option), f"the file {given[1:]}", option)
    return _parse(given, "the JSON", option)


def _content(file: Path, option: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{option}: {file} cannot be read: {error}", param=option) from error


def _parse(text: str, source: str, option: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{option}: {source} is not valid JSON: {error}", param=option) from error
    if not isinstance(value, dict):
        raise UserError(f"{option}: {source} must be a JSON object, not {text.strip()[:80]!r}", param=option)
    return value


DEFAULT_SERVER = "http://127.0.0.1:8420"

ServerOption = Annotated[
    str | None, typer.Option(envvar="LUTHIER_SERVER", help=f"URL of the service (default: {DEFAULT_SERVER}).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def connect(server: str | None) -> Client:
    return Client(server or DEFAULT_SERVER)


GRADERS: Final = ("string_check", "text_similarity", "number", "math")
GRADER_HELP: Final = (
    f"How generations are graded: {', '.join(GRADERS)}, a grader as a JSON object, "
    'e.g. \'{"type": "string_check", "operation": "ilike"}\', or @FILE.json with one (for python, score_model, '
    "label_model and multi)."
)


def read_grader(option: str) -> dict[str, Any]:
    """Return the grader as JSON; the service validates its fields. Raises UserError naming the option."""
    if option.startswith("@") or option.lstrip().startswith("{"):
        return read_object(option, "--grader")
    if option not in GRADERS:
        raise UserError(
            f"--grader must be one of {', '.join(GRADERS)}, a JSON object, or @FILE.json, not {option!r}.",
            param="--grader",
        )
    return {"type": option}


HomeOption = Annotated[Path | None, typer.Option(help="Home folder (default: $LUTHIER_HOME or ~/.luthier).")]


def settings_of(**given: Any) -> Settings:
    """Return the settings from the environment, overridden by options of the command line."""
    return Settings(**{name: value for name, value in given.items() if value is not None})


def open_store(settings: Settings) -> Database:
    """Open the store. SQLite is created or upgraded; PostgreSQL is only checked (see `luthier db upgrade`)."""
    from luthier.store.database import Database  # imported late, because it takes a second

    store = Database(settings.database)
    if store.url.get_backend_name() == "sqlite":
        store.upgrade()
    else:
        store.check()
    return store
