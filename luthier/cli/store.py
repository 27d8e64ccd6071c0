"""The store of a home, for the commands that run on the service's own machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.settings import Settings

if TYPE_CHECKING:
    from luthier.store.database import Database

HomeOption = Annotated[Path | None, typer.Option(help="Home folder (default: $LUTHIER_HOME or ~/.luthier).")]


def settings_of(**given: Any) -> Settings:
    """Settings from the environment, with the options that were given on the command line before them."""
    return Settings(**{name: value for name, value in given.items() if value is not None})


def open_store(settings: Settings) -> Database:
    """An SQLite store is made, or brought up to date; another one is only checked (`luthier db upgrade`)."""
    from luthier.store.database import Database  # takes a second, and most commands do without

    store = Database(settings.database)
    if store.url.get_backend_name() == "sqlite":
        store.upgrade()
    else:
        store.check()
    return store
