"""Start a temporary service and run the command line against it, as a user would."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from luthier.client import Client
from luthier.errors import Unreachable

START_SECONDS: Final = 60


def luthier(server: str, *arguments: str) -> int:
    """Run a command with its output on the terminal and return its exit code."""
    command = [sys.executable, "-P", "-m", "luthier", *arguments]
    return subprocess.run(command, env=os.environ | {"LUTHIER_SERVER": server}, check=False).returncode


def output(server: str, *arguments: str, columns: int) -> str:
    """Run a command and return its output, `columns` wide. Raises CalledProcessError if it fails."""
    command = [sys.executable, "-P", "-m", "luthier", *arguments]
    environment = os.environ | {"LUTHIER_SERVER": server, "COLUMNS": str(columns)}
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def service(home: Path) -> Iterator[str]:
    """Run `luthier serve` on a free port until the block ends, and yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-P", "-m", "luthier", "serve", "--home", str(home), "--port", str(port)]
    process = subprocess.Popen(command, start_new_session=True)  # we pass on Ctrl-C ourselves, once
    try:
        server = f"http://127.0.0.1:{port}"
        _wait(server, process)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(server: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    with Client(server) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.models()
                return
            except Unreachable:
                time.sleep(0.2)
    sys.exit("The service did not start. Its output above says why.")
