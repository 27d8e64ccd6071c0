"""The thread that logs ended trials to the experiment trackers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from luthier.settings import Settings
from luthier.store import jobs, measurements, trials
from luthier.store.rows import JobRecord
from service.background import Liveness
from service.context import Context
from service.integrations.mlflow import Mlflow
from service.integrations.tensorboard import TensorBoard
from service.integrations.tracker import Tracker

log = logging.getLogger(__name__)

SECONDS: Final = 5.0
PATIENCE: Final = 3600.0  # seconds for one job: the trackers' clients retry for long by themselves
PAGE: Final = 100  # newest jobs to look at each time


def trackers(settings: Settings) -> list[Tracker]:
    """Return the trackers that the settings enable. Raises UserError where a package is not installed."""
    found: list[Tracker] = []
    if settings.mlflow_url is not None:
        found.append(Mlflow(settings.mlflow_url))
    if settings.tensorboard_dir is not None:
        found.append(TensorBoard(settings.tensorboard_dir.expanduser().absolute()))
    return found


class Publisher:
    """Logs new trials every few seconds; at its start it looks at all jobs, later at the newest."""

    def __init__(self, ctx: Context, trackers: Sequence[Tracker], seconds: float = SECONDS) -> None:
        self._ctx, self._trackers, self._seconds = ctx, trackers, seconds
        self._concluded: set[tuple[str, str]] = set()
        self._logged: dict[tuple[str, str], set[str]] = {}  # trial ids by tracker and job
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="luthier-publisher", daemon=True)
        self.liveness = Liveness("trackers", self._thread, PATIENCE)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread. Returns when the trial in progress is logged."""
        self._stop.set()
        self._thread.join()

    def look(self, *, everything: bool) -> None:
        """Log to each tracker the trials that it lacks, of all jobs or of the newest."""
        for job in list(self._jobs(everything=everything)):
            for tracker in self._trackers:
                if self._stop.is_set():
                    return
                if not job.state.terminal:
                    self._concluded.discard((tracker.name, job.id))  # its search was extended
                if (tracker.name, job.id) not in self._concluded:
                    self._log(tracker, job)
                self.liveness.progressed()

    def _run(self) -> None:
        everything = True
        while not self._stop.is_set():
            try:
                self.look(everything=everything)
                everything = False
            except Exception as error:  # of the tracker's service: tried again later
                log.warning(
                    "trials could not be logged to a tracker: %s", error, exc_info=log.isEnabledFor(logging.DEBUG)
                )
            self.liveness.progressed()  # also where a tracker does not respond: the loop itself works
            self._stop.wait(self._seconds)

    def _jobs(self, *, everything: bool) -> Iterator[JobRecord]:
        after: str | None = None
        more = True
        while more:
            with self._ctx.database.read() as c:
                found, more = jobs.list_(c, after, PAGE, {})
            yield from found
            if not everything or not found:
                return
            after = found[-1].id

    def _log(self, tracker: Tracker, job: JobRecord) -> None:
        with self._ctx.database.read() as c:
            rows = trials.of_job(c, job.id)
        logged = self._logged.setdefault((tracker.name, job.id), set())
        ended = [row for row in rows if row.state.terminal and row.started_at is not None]
        if any(row.id not in logged for row in ended):
            logged |= tracker.known(job)
        for row in ended:
            if row.id in logged:
                continue
            if self._stop.is_set():
                return
            with self._ctx.database.read() as c:
                points = measurements.of_trial(c, row.id)
            tracker.log_trial(job, row, points)
            logged.add(row.id)
        if job.state.terminal and all(row.state.terminal for row in rows):
            tracker.conclude(job)
            self._concluded.add((tracker.name, job.id))
            del self._logged[tracker.name, job.id]
