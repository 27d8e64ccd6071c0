"""The thread that tells the trackers of trials that have ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from luthier.settings import Settings
from luthier.store import jobs, measurements, trials
from luthier.store.rows import JobRecord
from service.background import Pulse
from service.context import Context
from service.integrations.mlflow import Mlflow
from service.integrations.tensorboard import TensorBoard
from service.integrations.tracker import Tracker

log = logging.getLogger(__name__)

SECONDS: Final = 5.0
PATIENCE: Final = 3600.0  # seconds that one job may take: clients of trackers try again for long, of their own accord
PAGE: Final = 100  # newest jobs that every look considers


def wanted(settings: Settings) -> list[Tracker]:
    """The trackers that the settings name. Raises UserError where one's package is not installed."""
    found: list[Tracker] = []
    if settings.mlflow_url is not None:
        found.append(Mlflow(settings.mlflow_url))
    if settings.tensorboard_dir is not None:
        found.append(TensorBoard(settings.tensorboard_dir.expanduser().absolute()))
    return found


class Publisher:
    """Looks every few seconds for what the trackers do not know, at all jobs when it starts."""

    def __init__(self, ctx: Context, trackers: Sequence[Tracker], seconds: float = SECONDS) -> None:
        self._here, self._trackers, self._seconds = ctx, trackers, seconds
        self._concluded: set[tuple[str, str]] = set()
        self._told: dict[tuple[str, str], set[str]] = {}  # by tracker and job: trials
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="luthier-publisher", daemon=True)
        self.pulse = Pulse("trackers", self._thread, PATIENCE)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the trial in hand is told."""
        self._stop.set()
        self._thread.join()

    def look(self, *, everything: bool) -> None:
        """Tell each tracker what it does not know, of all jobs or of the newest."""
        for job in list(self._jobs(everything=everything)):
            for tracker in self._trackers:
                if self._stop.is_set():
                    return
                if (tracker.name, job.id) not in self._concluded:
                    self._tell(tracker, job)
                self.pulse.beat()

    def _run(self) -> None:
        everything = True
        while not self._stop.is_set():
            try:
                self.look(everything=everything)
                everything = False
            except Exception as error:  # of somebody else's service: the next look tries again
                log.warning(
                    "trials could not be told to a tracker: %s", error, exc_info=log.isEnabledFor(logging.DEBUG)
                )
            self.pulse.beat()  # also where a tracker is away: that is its trouble, not this service's
            self._stop.wait(self._seconds)

    def _jobs(self, *, everything: bool) -> Iterator[JobRecord]:
        after: str | None = None
        more = True
        while more:
            with self._here.database.read() as c:
                found, more = jobs.list_(c, after, PAGE, {})
            yield from found
            if not everything or not found:
                return
            after = found[-1].id

    def _tell(self, tracker: Tracker, job: JobRecord) -> None:
        with self._here.database.read() as c:
            rows = trials.of_job(c, job.id)
        told = self._told.setdefault((tracker.name, job.id), set())
        ended = [row for row in rows if row.state.terminal and row.started_at is not None]
        if any(row.id not in told for row in ended):
            told |= tracker.known(job)
        for row in ended:
            if row.id in told:
                continue
            if self._stop.is_set():
                return
            with self._here.database.read() as c:
                points = measurements.of_trial(c, row.id)
            tracker.keep(job, row, points)
            told.add(row.id)
        if job.state.terminal and all(row.state.terminal for row in rows):
            tracker.conclude(job)
            self._concluded.add((tracker.name, job.id))
            del self._told[tracker.name, job.id]
