"""Commands that run the service and its workers."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
import time
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
import uvicorn
from filelock import FileLock, Timeout

from luthier import child_process, logs
from luthier.cli.options import HomeOption, open_store, settings_of
from luthier.cli.show import console
from luthier.errors import Conflict, LuthierError, UserError
from luthier.settings import Settings

if TYPE_CHECKING:
    from workers.launch_local import LocalEngine  # imported late, because it takes seconds

IDLE_SECONDS = 1.0  # within which threads end that work for no request

database = typer.Typer(help="The database.", no_args_is_help=True)


def serve(
    home: HomeOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (default: 8420; 0: any free one).")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Local workers (default: one per GPU, or per CPU core where memory allows)."),
    ] = None,
) -> None:
    """Start the service (API and dashboard) and local workers. Ctrl-C stops them without losing work."""
    from workers.launch_local import default_workers, gpu_count

    settings = settings_of(home=home, host=host, port=port)
    logs.configure(settings.log_format)
    settings.home_dir.mkdir(parents=True, exist_ok=True)
    _require_a_key(settings)
    try:
        forking = nullcontext() if gpu_count() else child_process.fork_server()  # a fork cannot use a GPU
        with FileLock(settings.home_dir / "serve.lock", timeout=0), forking:
            _serve(settings, default_workers() if workers is None else workers)
        _exit_without_threads()
    except Timeout:
        raise Conflict(
            f"Another `luthier serve` is using {settings.home_dir}. Choose another folder with --home."
        ) from None


def _exit_without_threads() -> None:
    """End the process if a thread still works for a request that was cancelled, such as the check of an upload.

    Python would wait for it, minutes perhaps. Nothing is lost: what it works on is stored only at its end.
    """
    deadline = time.monotonic() + IDLE_SECONDS
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)


def _require_a_key(settings: Settings) -> None:
    """Raise UserError if other machines can reach the service and no key exists yet."""
    from luthier.store import keys

    if settings.local_only:
        return
    with closing(open_store(settings)) as store, store.read() as c:
        if any(key.live(datetime.now(UTC)) for key in keys.list_(c)):
            return
    raise UserError(
        f"--host {settings.host} is reachable from other machines, so an API key is required. Create one first: "
        "luthier keys create NAME --scope admin",
        param="host",
    )


def _serve(settings: Settings, workers: int) -> None:
    from service.app import create_app
    from workers.launch_local import LocalEngine

    app = create_app(settings)
    config = uvicorn.Config(
        app,
        settings.host,
        settings.port,
        http="h11",
        log_level="warning",
        log_config=None,
        timeout_graceful_shutdown=10,
    )
    listening = _listen(settings.host, settings.port)
    address = f"http://{_reachable(settings.host)}:{listening.getsockname()[1]}"
    engine = LocalEngine(settings.home_dir, workers, app.state.worker_key)
    where = f"{address} (dashboard; API: {address}/docs)"
    said = f"Luthier serves {settings.home_dir} at {where}, {workers} local worker{'' if workers == 1 else 's'}"
    engine.start(address)
    try:
        _Server(config, engine, said).run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn raises the signal again after its shutdown
        console.print("Stopped. Running trials continue when the service is started again.")
    finally:
        engine.stop()


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address. Raises LuthierError that names the port, where it cannot be."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise LuthierError(f"Port {port} is in use. Choose another with --port.", param="--port") from None
        raise LuthierError(
            f"The service cannot listen on {host}, port {port}: {error.strerror or error}. Choose another address with "
            "--host, or another port with --port.",
            param="--port" if error.errno == errno.EACCES else "--host",
        ) from error
    found.set_inheritable(True)
    return found


def _reachable(host: str) -> str:
    """Return the host for a URL on this machine. A service on all addresses also listens on the loopback."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"


class _Server(uvicorn.Server):
    """On SIGINT or SIGTERM the workers stop first, while the service still accepts their checkpoints.

    `said` is printed once the service answers.
    """

    def __init__(self, config: uvicorn.Config, engine: LocalEngine, said: str) -> None:
        super().__init__(config)
        self._engine = engine
        self._said = said
        self._winding_down: threading.Thread | None = None
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end as KeyboardInterrupt after the service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            console.print(self._said)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._winding_down is None:
            console.print("Stopping: running trials save a checkpoint. Press Ctrl-C again to stop at once.")
            self._winding_down = threading.Thread(target=self._wind_down, args=(sig, frame), daemon=True)
            self._winding_down.start()
        else:
            self.force_exit = True
            self._engine.kill()
            super().handle_exit(sig, frame)

    def _wind_down(self, sig: int, frame: FrameType | None) -> None:
        self._engine.stop()
        super().handle_exit(sig, frame)


def worker(
    server: Annotated[str, typer.Option(envvar="LUTHIER_SERVER", help="URL of the service.")],
    name: Annotated[str | None, typer.Option(help="Name of this worker (default: host and process id).")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for downloaded data.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads for torch.")] = 1,
) -> None:
    """Run a worker: lease trials from a service, train and score them. Ctrl-C saves and returns the running trial."""
    from workers import agent  # imports torch, which other commands do not need

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
    """Upgrade the database's tables to this version. PostgreSQL needs it; for SQLite `serve` does it by itself."""
    settings = settings_of(home=home, database_url=url)
    if settings.database_url is None:
        settings.home_dir.mkdir(parents=True, exist_ok=True)
    from luthier.store.database import Database

    store = Database(settings.database)
    store.upgrade()
    store.close()
    console.print("The database is up to date.")
