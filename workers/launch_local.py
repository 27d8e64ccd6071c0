"""Workers as child processes of this machine: one for each GPU, or one one-thread worker per CPU core."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import psutil

log = logging.getLogger(__name__)

# What one CPU worker needs for a small model in training; fewer workers are started where memory is short.
MEMORY_PER_WORKER = 4 * 2**30
RESTART_SECONDS = 2.0


def gpu_count() -> int:
    """NVIDIA GPUs of this machine that CUDA_VISIBLE_DEVICES leaves visible, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() and part.strip() != "-1"])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def default_workers() -> int:
    """One per GPU; on a CPU one per core where memory allows."""
    cores = len(psutil.Process().cpu_affinity() or [0])
    by_memory = max(1, psutil.virtual_memory().total // MEMORY_PER_WORKER)
    return gpu_count() or min(cores, by_memory)


def worker_name(server: str, index: int) -> str:
    """The same after a restart, so that a new process takes over at once what the old one held."""
    return f"{socket.gethostname()}-{urlsplit(server).port}-{index}"


class LocalEngine:
    """Starts `count` workers and starts again those that die. Their output goes to `home`/logs/worker-N.log.

    They get `key` through their environment, which no other user of the machine can read.
    """

    def __init__(self, home: Path, count: int, key: str) -> None:
        self.home = home
        self.count = count
        self._key = key
        self._stopping = threading.Event()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._keeper: threading.Thread | None = None

    def start(self, server: str) -> None:
        (self.home / "logs").mkdir(parents=True, exist_ok=True)
        for index in range(self.count):
            self._children[index] = self._launch(server, index)
        self._keeper = threading.Thread(target=self._keep, args=(server,), daemon=True)
        self._keeper.start()

    def stop(self) -> None:
        """Safe to call twice; a child that has ended is left alone."""
        self._stopping.set()
        for child in self._children.values():
            child.terminate()
        for child in self._children.values():
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()

    def _keep(self, server: str) -> None:
        while not self._stopping.wait(RESTART_SECONDS):
            for index, child in self._children.items():
                if child.poll() is not None and not self._stopping.is_set():
                    log.warning("worker %d ended with code %s; starting it again", index, child.returncode)
                    self._children[index] = self._launch(server, index)

    def _launch(self, server: str, index: int) -> subprocess.Popen[bytes]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment["LUTHIER_API_KEY"] = self._key
        environment.pop("LUTHIER_SECRET", None)
        if gpu_count():
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpu_count())))).split(",")
            environment["CUDA_VISIBLE_DEVICES"] = visible[index % len(visible)]
        command = [
            sys.executable,
            "-P",
            "-m",
            "workers.agent",
            "--server",
            server,
            "--name",
            worker_name(server, index),
        ]
        command += ["--cache", str(self.home / "cache" / "blobs"), "--with-parent"]
        with (self.home / "logs" / f"worker-{index}.log").open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the service, which then ends its workers in order
            )
