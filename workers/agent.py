"""The worker process: take a lease, run its trial, report, repeat. Base weights and tokenised data stay cached.

Started as `python -P -m workers.agent --server URL --name NAME --cache DIR`. With `--with-parent` the worker ends when
its standard input closes, so that local workers never outlive the service that started them.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Literal

import torch
import transformers

from luthier import logs
from luthier.errors import Infeasible, Interrupted, LeaseLost, LuthierError, Stopped
from luthier.settings import LogSettings
from luthier.worker_protocol import Assignment, Device, Finished, Hello
from workers import trial
from workers.inference.host import Host
from workers.lease import Lease
from workers.meter import machine_memory
from workers.service_client import ServiceClient

log = logging.getLogger("luthier.worker")


class Agent:
    """One worker on one device. After `stop`, `run` gives back its trial and returns."""

    def __init__(self, service: ServiceClient, name: str, device: torch.device, threads: int) -> None:
        self.service = service
        self.name = name
        self.device = device
        self.threads = threads
        self._stopping = threading.Event()
        self._lease: Lease | None = None

    def stop(self) -> None:
        """Finish the current step, save a checkpoint, give the trial back, and end. Safe in a signal handler."""
        self._stopping.set()
        self.service.patience = 5.0
        if self._lease is not None:
            self._lease.interrupt()

    def run(self) -> None:
        """Work until `stop`. Raises Unreachable if the service does not answer for too long."""
        hello = Hello(name=self.name, device=describe(self.device, self.threads), pid=os.getpid())
        welcome = self.service.register(hello)
        log.info("worker %s on %s is ready", self.name, hello.device.name)
        host = Host(self.service, welcome, self.threads)
        host.start()
        try:
            while not self._stopping.is_set():
                assignment = self.service.lease(welcome.worker_id)
                if assignment is None:
                    self._stopping.wait(welcome.poll_seconds)
                else:
                    with logs.about(job_id=assignment.job_id, trial_id=assignment.trial_id):
                        self._work(assignment, welcome.lease_seconds, welcome.checkpoint_seconds)
        finally:
            host.stop()

    def _work(self, assignment: Assignment, lease_seconds: float, checkpoint_seconds: float) -> None:
        log.info("trial %d of %s: %s", assignment.number, assignment.job_id, assignment.design.summary())
        try:
            with Lease(self.service, assignment, lease_seconds) as lease:
                self._lease = lease
                if self._stopping.is_set():
                    lease.interrupt()
                finished = self._outcome(lease, checkpoint_seconds)
            self.service.finish(assignment.trial_id, finished)
            log.info("trial %d of %s: %s", assignment.number, assignment.job_id, finished.outcome)
        except LeaseLost:
            log.warning("trial %d of %s now belongs to another worker", assignment.number, assignment.job_id)
        finally:
            self._lease = None
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _outcome(self, lease: Lease, checkpoint_seconds: float) -> Finished:
        outcome: Literal["failed", "infeasible", "cancelled", "waiting"]
        try:
            return trial.run(self.service, lease, self.device, checkpoint_seconds)
        except LeaseLost:
            raise
        except Stopped as stop:
            outcome, error = "cancelled", stop.message
        except Interrupted as interruption:
            outcome, error = "waiting", interruption.message
        except Infeasible as refusal:
            outcome, error = "infeasible", refusal.message
        except LuthierError as failure:
            outcome, error = "failed", failure.message
        except Exception as bug:  # a library may fail in any way under some design; the worker must survive it
            log.exception("trial %s failed", lease.assignment.trial_id)
            where = traceback.extract_tb(bug.__traceback__)[-1]
            outcome, error = "failed", f"{type(bug).__name__}: {bug} ({where.name}, {Path(where.filename).name})"
        lease.say(f"{error[:1].upper()}{error[1:]}." if outcome == "waiting" else f"Trial {outcome}: {error}")
        return Finished(
            **lease.claim,
            outcome=outcome,
            device_seconds=lease.device_seconds,
            trained_tokens=lease.tokens,
            error=error,
            usage=lease.meter.usage(),
            points=lease.drain(),
            lines=lease.drain_lines(),
        )


def describe(device: torch.device, threads: int) -> Device:
    """Return the device as registered with the service: kind, name, memory in bytes, CPU threads."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return Device(
            kind="cuda",
            name=properties.name,
            memory_bytes=properties.total_memory,
            threads=threads,
            four_bit=importlib.util.find_spec("bitsandbytes") is not None,
        )
    memory = machine_memory()
    kind: Literal["cpu", "mps"] = "mps" if device.type == "mps" else "cpu"
    return Device(kind=kind, name=f"{os.uname().machine} {kind.upper()}", memory_bytes=memory, threads=threads)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="luthier worker", description="Train trials for a Luthier service.")
    parser.add_argument("--server", required=True, help="URL of the service")
    parser.add_argument(
        "--name", default=f"{socket.gethostname()}-{os.getpid()}", help="name of this worker, unique among all workers"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("~/.luthier/cache/blobs"), help="folder for downloaded files"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for torch (default: 1)")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    options = parser.parse_args(arguments)
    logs.configure(LogSettings().log_format)
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    service = ServiceClient(options.server, options.cache.expanduser())
    agent = Agent(service, options.name, device, options.threads)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: agent.stop())
    if options.with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.freeze()  # the libraries stay: a collection of garbage after each trial would look through them for seconds
    try:
        agent.run()
    except LuthierError as error:
        sys.exit(f"luthier worker: {error.message}")


def _end_with_parent() -> None:
    """Block until the parent's pipe closes, then exit at once. The lease expires and another worker takes the trial."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
