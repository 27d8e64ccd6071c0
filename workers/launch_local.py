"""Start workers as child processes on this machine: one per GPU, or one single-threaded worker per CPU core."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from luthier import child_process
from luthier.child_process import ChildProcess

log = logging.getLogger(__name__)

MEMORY_PER_WORKER = 4 * 2**30  # bytes that one CPU worker needs to train a small model
RESTART_SECONDS = 2.0


def gpu_count() -> int:
    """Return the number of NVIDIA GPUs that CUDA_VISIBLE_DEVICES leaves visible, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() and part.strip() != "-1"])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def default_workers() -> int:
    """Return how many workers to start: one per GPU; without GPUs one per core, or fewer if memory is short."""
    cores = len(psutil.Process().cpu_affinity() or [0])
    by_memory = max(1, psutil.virtual_memory().total // MEMORY_PER_WORKER)
    return gpu_count() or min(cores, by_memory)


class LocalEngine:
    """Starts `count` workers and restarts those that die. Their output goes to `home`/logs/worker-N.log.

    The API key is passed in their environment, which no other user of the machine can read.
    """

    def __init__(self, home: Path, count: int, key: str) -> None:
        self.home = home
        self.count = count
        self._key = key
        self._stopping = threading.Event()
        self._children: dict[int, ChildProcess] = {}
        self._keeper: threading.Thread | None = None

    def start(self, server: str) -> None:
        (self.home / "logs").mkdir(parents=True, exist_ok=True)
        for index in range(self.count):
            self._children[index] = self._launch(server, index)
        self._keeper = threading.Thread(target=self._keep, args=(server,), daemon=True)
        self._keeper.start()

    def stop(self) -> None:
        """End all workers. Safe to call twice."""
        self._stopping.set()
        for child in self._children.values():
            child.terminate()
        for child in self._children.values():
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()

    def kill(self) -> None:
        """End all workers at once, without their checkpoints."""
        self._stopping.set()
        for child in self._children.values():
            child.kill()

    def _keep(self, server: str) -> None:
        while not self._stopping.wait(RESTART_SECONDS):
            for index, child in self._children.items():
                if child.poll() is not None and not self._stopping.is_set():
                    log.warning("worker %d ended with code %s; restarting it", index, child.poll())
                    self._children[index] = self._launch(server, index)

    def _launch(self, server: str, index: int) -> ChildProcess:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment["LUTHIER_API_KEY"] = self._key
        environment.pop("LUTHIER_SECRET", None)
        if gpu_count():
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpu_count())))).split(",")
            environment["CUDA_VISIBLE_DEVICES"] = visible[index % len(visible)]
        # The same name after a restart, so that the new process takes over the old one's lease at once.
        name = f"{socket.gethostname()}-{urlsplit(server).port}-{index}"
        arguments = ["--server", server, "--name", name, "--cache", str(self.home / "cache" / "blobs"), "--with-parent"]
        with (self.home / "logs" / f"worker-{index}.log").open("ab") as output:
            return child_process.start(
                "workers.agent",
                *arguments,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                environment=environment,
            )
