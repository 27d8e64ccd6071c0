"""What has become new in a job since the last look: for streams, which look again and again.

Of a look's news those come last that a stream can be resumed from, the events. Whoever is cut off in between is told
the rest once more: states are whole, and a point is known by its curve, stage and step, so that hearing it twice is
harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from luthier.api_types import CurvePoints, Event, Job, Trial
from luthier.store import Connection, events, jobs, measurements, trials
from luthier.store.rows import EventRecord, JobRecord, TrialMark, TrialRecord
from luthier.trial import TrialState
from service.context import Context, utc_now
from service.jobs import costs, history
from service.results import serializers

News = Job | Trial | CurvePoints | Event

MOST_EVENTS: Final = 1000  # at one look
REFRESH: Final = timedelta(seconds=5)  # at least between two words on nothing but the budget
SLACK: Final = timedelta(seconds=1)  # by which what was written together may differ in time


class Follower:
    """Remembers what it has told. `after` is the event from which it goes on; None: from the start of the job."""

    def __init__(self, ctx: Context, job_id: str, after: str | None) -> None:
        self._here = ctx
        self._job_id = job_id
        self._after = after
        self._marks: dict[str, TrialMark] | None = None
        self._points: dict[str, set[tuple[str, int, int]]] = {}  # of the trials that are being trained
        self._spent = 0.0
        self._told_at = datetime.min.replace(tzinfo=utc_now().tzinfo)
        self.over = False

    def look(self) -> list[News]:
        """What is new, in the order in which it is to be told. Raises NotFound for an unknown job or event."""
        now = utc_now()
        with self._here.database.read() as c:
            job = jobs.get(c, self._job_id)
            marks = trials.marks(c, self._job_id)
            told = events.since(c, self._job_id, self._after, MOST_EVENTS)
            changed = self._changed(c, marks, told)
            rows = trials.of_job(c, self._job_id) if changed or self._stale(marks, now) or self._marks is None else []
            news: list[News] = [*self._new_points(c, marks, changed)]
            repeats = history.repeats(rows)
            news += [serializers.trial(row, repeats.get(row.number)) for row in rows if row.id in changed]
            if rows or self._marks is None or job.state.terminal:
                news.append(self._view(c, job, rows, now))
        self._marks = {mark.id: mark for mark in marks}
        if told:
            self._after = told[-1].id
        busy = len(told) == MOST_EVENTS or any(mark.state is TrialState.LEASED for mark in marks)
        self.over = job.state.terminal and not busy
        return [*news, *map(serializers.event, told)]

    def _view(self, c: Connection, job: JobRecord, rows: Sequence[TrialRecord], now: datetime) -> Job:
        rows = rows or trials.of_job(c, job.id)
        self._spent, self._told_at = sum(row.device_seconds for row in rows), now
        left = None if job.state.terminal else costs.work_left(self._here, c, job, rows, now)
        return serializers.job(job, rows, now, left)

    def _stale(self, marks: Sequence[TrialMark], now: datetime) -> bool:
        spent = sum(mark.device_seconds for mark in marks)
        return spent != self._spent and now - self._told_at >= REFRESH

    def _changed(self, c: Connection, marks: Sequence[TrialMark], told: Sequence[EventRecord]) -> set[str]:
        """The trials to tell of. At the first look those of which something may have been missed."""
        if self._marks is not None:
            before = {trial_id: _print(mark) for trial_id, mark in self._marks.items()}
            return {mark.id for mark in marks if before.get(mark.id) != _print(mark)}
        if self._after is None:
            return {mark.id for mark in marks}
        since = events.get(c, self._after).created_at - SLACK
        named = {event.data["trial"] for event in told if event.data is not None and "trial" in event.data}
        late = {mark.id for mark in marks if max(mark.created_at, mark.finished_at or mark.created_at) >= since}
        return named | late | {mark.id for mark in marks if not mark.state.terminal}

    def _new_points(self, c: Connection, marks: Sequence[TrialMark], changed: set[str]) -> Iterable[CurvePoints]:
        """Of the trials that are being trained, and of those that were until now."""
        leased = {mark.id for mark in marks if mark.state is TrialState.LEASED}
        numbers = {mark.id: mark.number for mark in marks}
        watched = leased | self._points.keys() | {mark.id for mark in marks if mark.id in changed and self._anew(mark)}
        for trial_id, count in measurements.counts(c, watched).items():
            known = self._points.setdefault(trial_id, set())
            if count == len(known):
                continue
            points = [(p.name, p.stage, p.step, p.value) for p in measurements.of_trial(c, trial_id)]
            fresh = tuple(point for point in points if point[:3] not in known)
            known.update(point[:3] for point in fresh)
            yield CurvePoints(trial=trial_id, number=numbers[trial_id], points=fresh)
        for trial_id in self._points.keys() - leased:
            if trial_id not in changed:
                del self._points[trial_id]

    def _anew(self, mark: TrialMark) -> bool:
        """Whether it has been leased since the last look, perhaps to its end; at the first look that is not known."""
        if self._marks is None:
            return True
        return mark.id not in self._marks or self._marks[mark.id].fence < mark.fence


def _print(mark: TrialMark) -> tuple[object, ...]:
    """What makes a trial worth telling of again: not the seconds that it takes."""
    return mark.state, mark.rung, mark.goal, mark.fence, mark.finished_at
