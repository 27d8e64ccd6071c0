"""The connection to the store: SQLite by default, or PostgreSQL, with one schema for both.

The functions of this package take a connection and never commit: the caller who opens a transaction ends it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    RowMapping,
    Select,
    Table,
    create_engine,
    event,
    func,
    literal,
    make_url,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from luthier.errors import Conflict, NotFound, Unreachable, UserError

BUSY_SECONDS: Final = 30.0
ADVISORY_LOCK: Final = 0x6C757468  # "luth": any number that all processes share

# Alembic keeps the running migration in module globals: threads of one process must take turns.
_alembic_turn = threading.Lock()


class Database:
    """The store behind a URL: `sqlite:///file` or `postgresql://…`. Thread-safe.

    Raises UserError for any other URL. Every transaction raises Unreachable where the database does not respond.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        match self.url.get_backend_name():
            case "sqlite":
                self._writer = _sqlite_engine(self.url, "BEGIN IMMEDIATE", "foreign_keys = ON")
                self._reader = _sqlite_engine(self.url, "BEGIN DEFERRED", "query_only = ON")
                # SQLite alters a table by dropping it; with foreign keys on, that deletes the rows that refer to it.
                self._migrator = _sqlite_engine(self.url, "BEGIN IMMEDIATE", "foreign_keys = OFF")
            case _:
                self._writer = create_engine(
                    self.url, isolation_level="READ COMMITTED", json_serializer=_to_json, pool_pre_ping=True
                )
                self._reader = self._writer.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
                self._migrator = self._writer

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a write transaction: committed at the end of the block, rolled back on an exception."""
        with self._connect(self._writer) as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot for reading; the database refuses writes in it."""
        with self._connect(self._reader) as connection:
            yield connection

    def upgrade(self) -> None:
        """Upgrade the schema to this version's, atomically. Other processes that upgrade at the same time wait.

        Raises Conflict for a schema that this version does not know.
        """
        with _alembic_turn, self._connect(self._migrator) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(ADVISORY_LOCK)))
            try:
                command.upgrade(alembic_config(connection), "head")
            except CommandError as error:
                raise Conflict(
                    f"The database {self.url.render_as_string()} cannot be upgraded. It may be from a newer version "
                    f"of Luthier. ({error})"
                ) from error

    def check(self) -> None:
        """Raise Conflict, naming both revisions, unless the schema is that of this version."""
        with self.read() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        needed = ScriptDirectory.from_config(alembic_config()).get_current_head()
        if found != needed:
            raise Conflict(
                f"The database {self.url.render_as_string()} is at revision {found or 'none'}, but this version of "
                f"Luthier needs {needed}. Run `luthier db upgrade`."
            )

    def close(self) -> None:
        for engine in (self._reader, self._writer, self._migrator):
            engine.dispose()

    def _connect(self, engine: Engine) -> Connection:
        try:
            return engine.connect()
        except OperationalError as error:
            raise Unreachable(f"the database {self.url.render_as_string()} does not respond: {error.orig}") from error


def alembic_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for the installed migrations."""
    config = Config()
    config.set_main_option("script_location", str(package_files("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def insert_into(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that supports ON CONFLICT, in the connection's dialect."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UserError(f"{url!r} is not a database URL. Expected sqlite:///FILE or postgresql://….") from error
    match parsed.get_backend_name():
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return parsed
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            fault = "SQLite needs a file" if other == "sqlite" else f"The database {other} is not supported"
            raise UserError(f"{fault}. Expected sqlite:///FILE or postgresql://….", param="database_url")


_to_json = partial(json.dumps, allow_nan=False)


def _sqlite_engine(url: URL, begin: str, pragma: str) -> Engine:
    Path(url.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, json_serializer=_to_json, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver would open deferred transactions by itself
        _enter_wal(connection)
        connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def open_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Turn on the write-ahead log. The busy timeout does not cover two processes that do so on a new file at once."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def page(
    c: Connection, query: Select[Any], table: Table, order: tuple[str, ...], after: str | None, limit: int
) -> tuple[list[RowMapping], bool]:
    """Return the next `limit` rows of `query` in descending `order`, and whether more follow.

    Raises NotFound for an unknown `after`.
    """
    columns = [table.c[name] for name in order]
    if after is not None:
        seen = c.execute(select(*columns).where(table.c.id == after)).one_or_none()
        if seen is None:
            raise NotFound(f"{after!r} was not found, so that no page follows it", param="after")
        place = [literal(value, column.type) for value, column in zip(seen, columns, strict=True)]
        query = query.where(tuple_(*columns) < tuple_(*place))
    rows = c.execute(query.order_by(*(column.desc() for column in columns)).limit(limit + 1)).mappings().all()
    return list(rows[:limit]), len(rows) > limit
