"""A lease on a trial: a thread renews it, sends curve points and log lines, and receives the order to stop."""

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
    """Use as a context manager around the work on a trial.

    The heartbeat thread only notes what the service ordered. `check()` raises it as LeaseLost, Stopped or Interrupted
    in the worker's own thread, so a trial only ever stops between two steps.
    """

    def __init__(self, service: ServiceClient, assignment: Assignment, lease_seconds: float) -> None:
        self.service = service
        self.assignment = assignment
        self.interval = lease_seconds / 4
        self.meter = Meter()
        self._wraps_up_at = assignment.wrap_up_at  # device-seconds of the trial
        self.stopped = False  # whether it wraps up because a user stopped the trial
        self.tokens = 0  # trained on so far, in all leases of the trial
        self._began = time.monotonic()
        self._points: list[Point] = []
        self._lines: list[LogLine] = []
        self._line_count = 0
        self._buffers = threading.Lock()
        self._sending = threading.Lock()
        self._over = threading.Event()
        self._order: LuthierError | None = None  # for `check` to raise
        self._paused = self._trained = False
        self._thread = threading.Thread(target=self._renew, name=f"lease-{assignment.trial_id}", daemon=True)

    @property
    def claim(self) -> dict[str, str | int]:
        """The fields that prove to the service that this worker holds the lease."""
        return {"owner": self.assignment.owner, "fence": self.assignment.fence}

    @property
    def device_seconds(self) -> float:
        """Seconds that the trial has used in all its leases."""
        return self.assignment.device_seconds + time.monotonic() - self._began

    @property
    def wrap_up(self) -> bool:
        """Whether a training that has a result should end with it: the budget ends, or a user stopped the trial."""
        return self._wraps_up_at is not None and self.device_seconds >= self._wraps_up_at

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def record(self, stage: int, step: int, values: dict[str, float]) -> None:
        """Add points to the trial's curves; the next heartbeat sends them."""
        now = datetime.now(UTC)
        points = [Point(stage=stage, step=step, name=name, value=value, at=now) for name, value in values.items()]
        with self._buffers:
            self._points.extend(points)

    def drain(self) -> tuple[Point, ...]:
        """Take the points that were not sent yet; the caller must send them."""
        with self._buffers:
            points, self._points = tuple(self._points), []
        return points

    def say(self, text: str) -> None:
        """Add a line to the trial's log; the next heartbeat sends it."""
        with self._buffers:
            self._lines.append(LogLine(number=self._line_count, at=datetime.now(UTC), text=text[:LONGEST_LINE]))
            self._line_count += 1

    def drain_lines(self) -> tuple[LogLine, ...]:
        """Take the lines that were not sent yet; the caller must send them."""
        with self._buffers:
            lines, self._lines = tuple(self._lines), []
        return lines

    def interrupt(self) -> None:
        """Have the next `check` give the trial back. Safe to call from a signal handler."""
        self._order = self._order or Interrupted("the worker is shutting down; another one resumes the trial")

    def check(self) -> None:
        """Raise LeaseLost, Stopped or Interrupted if the service or the worker asked for it."""
        if self._order is not None:
            raise self._order
        if self._paused and not self._trained:
            raise Interrupted("the job is paused; the trial resumes with it")

    def trained(self) -> None:
        """Training is done. From now on a pause waits for the trial, since no checkpoint holds half a judgement."""
        self._trained = True

    def beat(self) -> None:
        """Renew the lease and send all new points and log lines.

        Raises LeaseLost, or Unreachable if the service does not answer. Unsent points and lines are then kept.
        """
        with self._sending:
            points, lines = self.drain(), self.drain_lines()
            heartbeat = Heartbeat(
                **self.claim,
                device_seconds=self.device_seconds,
                trained_tokens=self.tokens,
                points=points,
                lines=lines,
            )
            try:
                directive = self.service.heartbeat(self.assignment.trial_id, heartbeat)
            except LuthierError:
                with self._buffers:
                    self._points[:0] = points
                    self._lines[:0] = lines
                raise
        self._wraps_up_at = 0.0 if directive.action == "wrap_up" else directive.wrap_up_at
        self.stopped = directive.action == "wrap_up" and directive.reason is not None
        match directive.action:
            case "stop":
                self._order = self._order or Stopped(directive.reason or "the service asked the trial to stop")
            case "pause":
                self._paused = True
            case "continue" | "wrap_up":
                self._paused = False  # the job was resumed before the trial could stop

    def _renew(self) -> None:
        while not self._over.wait(self.interval):
            try:
                self.beat()
            except LeaseLost as lost:
                self._order = lost
                return
            except LuthierError as error:
                log.warning("heartbeat of %s: %s", self.assignment.trial_id, error)
