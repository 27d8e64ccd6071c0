"""A real `luthier serve` in a process of its own, with real workers, to be killed and started again by tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

from luthier.client import Client
from luthier.errors import Unreachable
from tests import commands, probed

T = TypeVar("T")

TINY = Path(__file__).parent / "models" / "tiny-chat"
TINY_ENCODER = Path(__file__).parent / "models" / "tiny-encoder"
FAST = {"LUTHIER_LEASE_SECONDS": "3", "LUTHIER_CHECKPOINT_SECONDS": "0.5", "LUTHIER_POLL_SECONDS": "0.2"}


def eventually(look: Callable[[], T | None], seconds: float = 120.0) -> T:
    """The first thing that `look` finds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.3)
    raise AssertionError(f"nothing was found within {seconds:g} s")


def running(module: str) -> list[tuple[psutil.Process, str]]:
    """The processes of this machine that run a module, with their commands."""
    commands = [(each, " ".join(each.info["cmdline"] or ())) for each in psutil.process_iter(["cmdline"])]
    return [(each, command) for each, command in commands if f"-m {module} " in command]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Live:
    """One home, one port, one service process at a time."""

    def __init__(self, home: Path, workers: int = 1) -> None:
        self.home = home
        self.port = free_port()
        self.workers = workers
        self.process: subprocess.Popen[bytes] | None = None
        self.client = Client(self.server)

    @property
    def server(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Client:
        """Start the service; returns the client once it answers."""
        command = [sys.executable, "-P", "-m", "luthier", "serve", "--home", str(self.home), "--port", str(self.port)]
        self.home.mkdir(parents=True, exist_ok=True)
        probed.put(self.home)
        with (self.home / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--workers", str(self.workers)], env=os.environ | FAST, stdout=log, stderr=log
            )
        try:
            eventually(self._answers)
        except AssertionError:
            self.kill()  # or it would outlive the test
            raise
        return self.client

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "serve.log").read_text()
        try:
            self.client.models()
        except Unreachable:
            return False
        return True

    def worker_processes(self) -> list[psutil.Process]:
        return [process for process, command in running("workers.agent") if self.server in command]

    def generation_processes(self) -> list[psutil.Process]:
        folder = str(self.home)
        return [process for process, command in running("workers.inference.process") if folder in command]

    def kill(self) -> None:
        """SIGKILL to the service, as when the machine's owner pulls the plug on it."""
        assert self.process is not None
        workers = self.worker_processes()
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(workers, timeout=20)

    def stop(self) -> int:
        """Ctrl-C."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def close(self) -> None:
        self.stop()
        self.client.close()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line against this service, in a process of its own."""
        command = [sys.executable, "-P", "-m", "luthier", *arguments]
        environment = os.environ | self._environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)

    def quick(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line against this service, in the test's own process."""
        return commands.run(*arguments, **self._environment)

    @property
    def _environment(self) -> dict[str, str]:
        own = {"LUTHIER_SERVER": self.server, "LUTHIER_HOME": str(self.home)}
        return own | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"}
