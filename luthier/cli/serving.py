"""Commands that run the service and its workers."""

from __future__ import annotations

import logging
import os
import signal
import threading
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
import uvicorn
from filelock import FileLock, Timeout

from luthier.cli.show import console
from luthier.errors import Conflict, UserError
from luthier.settings import Settings

if TYPE_CHECKING:
    from workers.engines.local import LocalEngine  # what only `serve` needs is imported there: it takes seconds

HomeOption = Annotated[Path | None, typer.Option(help="Home folder (default: $LUTHIER_HOME or ~/.luthier).")]

database = typer.Typer(help="The SQL store.", no_args_is_help=True)


def _settings(**given: Any) -> Settings:
    """Settings from the environment, with the options that were given on the command line before them."""
    return Settings(**{name: value for name, value in given.items() if value is not None})


def serve(
    home: HomeOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (default: 8420; 0: any free one).")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Local workers (default: one per GPU, or per CPU core where memory allows)."),
    ] = None,
) -> None:
    """Start the service with its embedded store and local workers; Ctrl-C stops it and loses nothing."""
    from workers.engines.local import default_workers

    settings = _settings(home=home, host=host, port=port)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    _require_loopback(settings.host)
    settings.home_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(settings.home_dir / "serve.lock", timeout=0):
            _serve(settings, default_workers() if workers is None else workers)
    except Timeout:
        raise Conflict(f"another `luthier serve` is using {settings.home_dir}; give this one its own --home") from None


def _require_loopback(host: str) -> None:
    """There are no keys yet, and whoever reaches the service may read what it can read: so nobody else reaches it."""
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UserError(
            f"--host {host} would let anybody in: listen on 127.0.0.1 and reach it through an SSH tunnel or a proxy "
            "that asks who is there",
            param="host",
        )


def _serve(settings: Settings, workers: int) -> None:
    from service.app import create_app
    from workers.engines.local import LocalEngine

    config = uvicorn.Config(
        create_app(settings),
        settings.host,
        settings.port,
        http="h11",
        log_level="warning",
        log_config=None,
        timeout_graceful_shutdown=10,
    )
    socket = config.bind_socket()
    address = f"http://{settings.host}:{socket.getsockname()[1]}"
    engine = LocalEngine(settings.home_dir, workers)
    console.print(f"Luthier serves {settings.home_dir} at {address} (API: {address}/docs), {workers} local worker(s)")
    engine.start(address)
    try:
        _Server(config, engine).run(sockets=[socket])
    except KeyboardInterrupt:  # uvicorn hands the signal on when it has wound down
        console.print("stopped; what was running goes on when the service is started again")
    finally:
        engine.stop()


class _Server(uvicorn.Server):
    """On SIGINT or SIGTERM the workers are stopped first, while the service can still take back what they hold."""

    def __init__(self, config: uvicorn.Config, engine: LocalEngine) -> None:
        super().__init__(config)
        self._engine = engine
        self._winding_down: threading.Thread | None = None
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end as KeyboardInterrupt after the service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._winding_down is None:
            console.print("stopping: running trials are given back (again to stop at once)")
            self._winding_down = threading.Thread(target=self._wind_down, args=(sig, frame), daemon=True)
            self._winding_down.start()
        else:
            super().handle_exit(sig, frame)

    def _wind_down(self, sig: int, frame: FrameType | None) -> None:
        self._engine.stop()
        super().handle_exit(sig, frame)


def worker(
    server: Annotated[str, typer.Option(envvar="LUTHIER_SERVER", help="URL of the service.")],
    name: Annotated[str | None, typer.Option(help="This worker's own name (default: host and process id).")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where downloaded data is kept.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads for torch.")] = 1,
) -> None:
    """Work for a service: lease trials, train and judge them, report. Ctrl-C gives back what it holds."""
    from workers import agent  # imports torch, which the other commands do without

    arguments = ["--server", server, "--threads", str(threads)]
    arguments += ["--name", name] if name else []
    arguments += ["--cache", str(cache)] if cache else []
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    agent.main(arguments)


@database.command()
def upgrade(
    home: HomeOption = None,
    url: Annotated[str | None, typer.Option(help="SQLAlchemy URL (default: $LUTHIER_DATABASE_URL or SQLite).")] = None,
) -> None:
    """Bring the store's tables to this version. `serve` does it by itself for SQLite; for PostgreSQL run it once."""
    from luthier.store.database import Database

    settings = _settings(home=home, database_url=url)
    if settings.database_url is None:
        settings.home_dir.mkdir(parents=True, exist_ok=True)
    store = Database(settings.database)
    store.upgrade()
    store.close()
    console.print("the store is up to date")
