"""Start the modules that run in processes of their own, quickly where a fork server runs.

A new interpreter needs seconds to import torch and transformers. `luthier serve` starts a process that has imported
them, the fork server (workers/fork_server.py), and names its socket in the environment. A module that is started then
is a fork of it, and runs at once. Without a fork server it is started in a new interpreter.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, Protocol

PIPE: Final = subprocess.PIPE
SOCKET: Final = "LUTHIER_FORK_SERVER"  # environment variable with the path of the fork server's socket
EXIT_SECONDS: Final = 10.0  # for the fork server to exit
REPLY: Final = struct.Struct("!q")  # of the fork server: a process id, then its exit code


class ChildProcess(Protocol):
    """The part of `subprocess.Popen[str]` that both kinds of child have."""

    stdin: IO[str] | None
    stdout: IO[str] | None

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


def start(
    module: str,
    *arguments: str,
    stdin: int | IO[Any] | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> ChildProcess:
    """Run the `main` function of a module in a process and a session of its own.

    `stdin` and `stdout` may be PIPE, for text in UTF-8. `environment` None inherits that of this process.
    """
    variables = dict(os.environ if environment is None else environment)
    if address := os.environ.get(SOCKET):
        with contextlib.suppress(OSError):  # the fork server has ended
            return _forked(address, [module, *arguments], variables, (stdin, stdout, stderr))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=variables,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C reaches only the parent, which then ends its children
    )


def piped(module: str, *arguments: str) -> ChildProcess:
    """Start a module with pipes for its standard input and output."""
    return start(module, *arguments, stdin=PIPE, stdout=PIPE)


@contextlib.contextmanager
def fork_server() -> Iterator[None]:
    """Run a fork server for the processes that this one and its children start, if none runs yet."""
    if os.environ.get(SOCKET):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="luthier-fork-") as folder:  # only this user may enter it
        path = Path(folder) / "socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(64)
            server = subprocess.Popen(
                [sys.executable, "-P", "-m", "workers.fork_server", str(listener.fileno())],
                stdin=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        os.environ[SOCKET] = str(path)
        try:
            yield
        finally:
            del os.environ[SOCKET]
            assert server.stdin is not None
            server.stdin.close()  # which ends it
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(EXIT_SECONDS)
            server.kill()
            server.wait()


def limit_memory(more_bytes: int) -> None:
    """Limit the addresses of this process to those that it has mapped, which are the libraries', and so many more."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + more_bytes, mapped + more_bytes))


class Forked:
    """A child of the fork server. Its exit code comes over the connection that started it. Thread-safe."""

    def __init__(self, pid: int, connection: socket.socket, stdin: IO[str] | None, stdout: IO[str] | None) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None
        self._connection = connection
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, None while the child runs. As with Popen, it is -N if signal N ended the child."""
        with self._lock:
            if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
                code = self._connection.recv(REPLY.size)
                # A fork server that ends takes its children along.
                self.returncode = REPLY.unpack(code)[0] if code else -signal.SIGKILL
                self._connection.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            with contextlib.suppress(ValueError, OSError):  # another thread read the exit code
                select.select([self._connection], [], [], left)
        return code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.kill(self.pid, number)


def _forked(
    address: str,
    command: list[str],
    environment: Mapping[str, str],
    streams: tuple[int | IO[Any] | None, int | IO[Any] | None, int | IO[Any] | None],
) -> Forked:
    """Have the fork server start a child. Raises OSError if it does not answer."""
    ours: list[IO[str] | None] = [None, None]
    descriptors: list[int] = []
    with contextlib.ExitStack() as theirs:
        for standard, stream in enumerate(streams):
            match stream:
                case None:
                    descriptors.append(standard)
                case subprocess.PIPE:
                    own, other = os.pipe() if standard else os.pipe()[::-1]
                    ours[standard] = os.fdopen(own, "r" if standard else "w", encoding="utf-8")
                    theirs.callback(os.close, other)
                    descriptors.append(other)
                case subprocess.STDOUT:
                    descriptors.append(descriptors[1])
                case subprocess.DEVNULL:
                    descriptors.append(theirs.enter_context(open(os.devnull, "r+b", buffering=0)).fileno())  # noqa: PTH123
                case int():
                    descriptors.append(stream)
                case _:
                    descriptors.append(stream.fileno())
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address)
            order = json.dumps({"command": command, "environment": dict(environment)}).encode() + b"\n"
            sent = socket.send_fds(connection, [order], descriptors)
            connection.sendall(order[sent:])
            pid = connection.recv(REPLY.size)
            if not pid:
                raise ConnectionError(f"{address} started no process")
        except OSError:
            connection.close()
            for pipe in filter(None, ours):
                pipe.close()
            raise
    return Forked(REPLY.unpack(pid)[0], connection, *ours)
