"""Both databases for real: SQLite in a file, and a PostgreSQL 16 of the test run's own."""

import secrets
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL, make_url

from luthier.store.database import Database
from tests import migrated
from tests.reproducing import Libraries

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its platformdirs warns where there is no XDG_RUNTIME_DIR
    import pgserver


@pytest.fixture(scope="session")
def postgres() -> Iterator[URL]:
    """A running server with an upgraded database `luthier`, to be copied.

    Its folder lies outside pytest's, which only the user who runs the tests may enter.
    """
    with tempfile.TemporaryDirectory(prefix="luthier-postgres-") as folder:
        server = pgserver.get_server(Path(folder) / "data")
        url = make_url(server.get_uri())
        execute(url, "ALTER SYSTEM SET fsync = off")  # the data need not outlive the tests
        execute(url, "ALTER SYSTEM SET timezone = 'Asia/Kolkata'")  # a server need not be set to UTC
        execute(url, "SELECT pg_reload_conf()")
        execute(url, "CREATE DATABASE luthier")
        database = Database(text(url.set(database="luthier")))
        database.upgrade()
        database.close()
        yield url
        server.cleanup()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgres"))])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        with copy_of("template0", request.getfixturevalue("postgres")) as url:
            yield url


@pytest.fixture
def database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty store at this version's schema."""
    if kind == "sqlite":
        migrated.put(tmp_path / "luthier.db")
        database = Database(f"sqlite:///{tmp_path / 'luthier.db'}")
        yield database
        database.close()
    else:
        with copy_of("luthier", request.getfixturevalue("postgres")) as url:
            database = Database(url)
            yield database
            database.close()


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libraries]:
    """A process that runs reproduction scripts."""
    process = Libraries(tmp_path_factory.mktemp("libraries"))
    yield process
    process.close()


@contextmanager
def copy_of(template: str, server: URL) -> Iterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield text(server.set(database=name))
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def execute(server: URL, statement: str) -> None:
    with psycopg.connect(text(server), autocommit=True) as connection:
        connection.execute(statement.encode())


def text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
