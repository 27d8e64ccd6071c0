"""The fork server: it has imported the libraries, and forks for each module that is to run in a process of its own.

`python -P -m workers.fork_server N`, where N is the descriptor of a listening socket. Each connection is an order: a
line of JSON with a command and an environment, and three descriptors for the standard streams. The replies are the
process id at once and the exit code at the end, as eight bytes each. The libraries are imported when the first order
comes. The server exits when its standard input closes; the children that still run are then ended.

It may hold no state of a GPU, which a fork cannot use. So it runs only on machines without one.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from dataclasses import dataclass
from typing import Final, NoReturn

import setproctitle

from luthier.child_process import REPLY

MODULES: Final = (
    "workers.agent",
    "workers.inference.process",
    "workers.capabilities",
    "workers.check_rows",
    "workers.import_model.inspect_model",
    "workers.import_model.weights",
)
LIBRARIES: Final = ("bitsandbytes", "scipy.optimize")  # imported by others late, when first used
_ORDER_BYTES: Final = 1 << 16
_END_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG of prctl(2)


def serve(listener: socket.socket) -> None:
    """Answer orders until standard input closes. In a child, run its module; the module's exit ends this function."""
    running: dict[int, socket.socket] = {}
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([listener, ended, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        if ended in ready:
            os.read(ended, _ORDER_BYTES)
            _report(running)
        if listener in ready:
            connection, _ = listener.accept()
            _load()
            with contextlib.suppress(ConnectionError):  # the process that asks has ended
                order = _order(connection)
                child = os.fork()
                if child == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for other in (connection, listener, *running.values()):
                        other.close()
                    os.close(ended)
                    os.close(wake)
                    _run(order)
                order.close()
                running[child] = connection
                connection.sendall(REPLY.pack(child))


@dataclass(frozen=True, kw_only=True)
class _Order:
    command: list[str]
    environment: dict[str, str]
    streams: list[int]

    def close(self) -> None:
        for descriptor in self.streams:
            os.close(descriptor)


def _order(connection: socket.socket) -> _Order:
    """Receive an order. Raises ConnectionError if it is cut off."""
    line, streams, _, _ = socket.recv_fds(connection, _ORDER_BYTES, 3)
    while not line.endswith(b"\n"):
        more = connection.recv(_ORDER_BYTES)
        if not more:
            raise ConnectionError("an order was cut off")
        line += more
    return _Order(**json.loads(line), streams=streams)


def _report(running: dict[int, socket.socket]) -> None:
    """Send the exit code of each child that has ended."""
    for child in list(running):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            with running.pop(child) as connection, contextlib.suppress(ConnectionError):
                connection.sendall(REPLY.pack(os.waitstatus_to_exitcode(status)))


def _load() -> None:
    """Import the libraries, once."""
    if MODULES[0] in sys.modules:
        return
    for name in (*LIBRARIES, *MODULES):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that collections of the children do not write to the pages that they share


def _run(order: _Order) -> NoReturn:
    """Be the child: run the module's main function, and exit."""
    os.setsid()
    ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
    for standard, descriptor in enumerate(order.streams):
        os.dup2(descriptor, standard)
    order.close()
    os.environ.clear()
    os.environ.update(order.environment)
    sys.path[:0] = [path for path in order.environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = order.command
    setproctitle.setproctitle(" ".join((sys.executable, "-P", "-m", *order.command)))
    code = 1
    try:
        code = _exit_code(importlib.import_module(order.command[0]).main())
    except SystemExit as end:
        code = _exit_code(end.code)
    except BaseException:  # as in an interpreter of its own
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # to take down the interpreter and its libraries would need a second of CPU time


def _exit_code(said: str | int | None) -> int:
    """Return the exit code for what `sys.exit` takes."""
    if isinstance(said, str):
        print(said, file=sys.stderr)
        return 1
    return said or 0


def main() -> None:
    setproctitle.setproctitle("luthier fork server")
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
