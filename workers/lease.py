"""A lease while it is held: a thread renews it, carries curve points and log lines home, and learns when to stop."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from typing import Final

from luthier.errors import Interrupted, LeaseLost, LuthierError, Stopped
from luthier.trial import LogLine, Point
from luthier.worker_protocol import Assignment, Heartbeat
from workers.meter import Meter
from workers.service_client import ServiceClient

log = logging.getLogger(__name__)

LONGEST_LINE: Final = 2000


class Lease:
    """Use as a context manager around the work on a trial. `check()` raises LeaseLost, Stopped or Interrupted
    in the worker's own thread, so work is only ever broken off between two steps."""

    def __init__(self, service: ServiceClient, assignment: Assignment, lease_seconds: float) -> None:
        self.service = service
        self.assignment = assignment
        self.interval = lease_seconds / 4
        self.meter = Meter()
        self.tokens = 0  # trained on so far, earlier leases included
        self._began = time.monotonic()
        self._points: list[Point] = []
        self._lines: list[LogLine] = []
        self._said = 0
        self._guard = threading.Lock()
        self._sending = threading.Lock()
        self._over = threading.Event()
        self._verdict: LuthierError | None = None
        self._paused = self._trained = False
        self._thread = threading.Thread(target=self._keep, name=f"lease-{assignment.trial_id}", daemon=True)

    @property
    def claim(self) -> dict[str, str | int]:
        return {"owner": self.assignment.owner, "fence": self.assignment.fence}

    @property
    def device_seconds(self) -> float:
        """What the trial has used in all, earlier leases included."""
        return self.assignment.device_seconds + time.monotonic() - self._began

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def record(self, stage: int, step: int, values: dict[str, float]) -> None:
        """Put values on the trial's curves; they travel with the next heartbeat."""
        now = datetime.now(UTC)
        points = [Point(stage=stage, step=step, name=name, value=value, at=now) for name, value in values.items()]
        with self._guard:
            self._points.extend(points)

    def drain(self) -> tuple[Point, ...]:
        """The points not sent yet; the caller sends them."""
        with self._guard:
            points, self._points = tuple(self._points), []
        return points

    def say(self, text: str) -> None:
        """Put a line into the trial's log; it travels with the next heartbeat."""
        with self._guard:
            self._lines.append(LogLine(number=self._said, at=datetime.now(UTC), text=text[:LONGEST_LINE]))
            self._said += 1

    def drain_lines(self) -> tuple[LogLine, ...]:
        """The lines not sent yet; the caller sends them."""
        with self._guard:
            lines, self._lines = tuple(self._lines), []
        return lines

    def interrupt(self) -> None:
        """Ask the worker's own thread to give the trial back. Safe to call from a signal handler."""
        self._verdict = self._verdict or Interrupted("the worker is shutting down")

    def check(self) -> None:
        """Raise what the service said, if it said anything."""
        if self._verdict is not None:
            raise self._verdict
        if self._paused and not self._trained:
            raise Interrupted("the job is paused")

    def trained(self) -> None:
        """What is left is to judge and to export, for which a paused job waits: no checkpoint could keep half of it."""
        self._trained = True

    def beat(self) -> None:
        """Renew the lease and send what is on the curves and in the log; when this returns the service has it all.

        Raises LeaseLost, or Unreachable when the service stays away; all is then kept for the next time.
        """
        with self._sending:
            points, lines = self.drain(), self.drain_lines()
            heartbeat = Heartbeat(**self.claim, device_seconds=self.device_seconds, points=points, lines=lines)
            try:
                directive = self.service.heartbeat(self.assignment.trial_id, heartbeat)
            except LuthierError:
                with self._guard:
                    self._points[:0] = points
                    self._lines[:0] = lines
                raise
        match directive.action:
            case "stop":
                self._verdict = self._verdict or Stopped(directive.reason or "the service asked to stop")
            case "pause":
                self._paused = True
            case "continue":
                self._paused = False  # paused and resumed before the trial could stop

    def _keep(self) -> None:
        while not self._over.wait(self.interval):
            try:
                self.beat()
            except LeaseLost as lost:
                self._verdict = lost
                return
            except LuthierError as error:
                log.warning("heartbeat of %s: %s", self.assignment.trial_id, error)
