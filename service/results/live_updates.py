"""What is new in a job since the last look, for streams that poll.

Events come last in each look, because a stream is resumed from an event. A client that is disconnected in between
receives the rest again. That is harmless: states are complete, and a point is identified by its curve, stage and step.
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
from service.jobs import costs, history, outcome
from service.results import serializers

News = Job | Trial | CurvePoints | Event

MOST_EVENTS: Final = 1000  # in one look
REFRESH: Final = timedelta(seconds=5)  # least time between updates of the job when only its spent budget changed
SLACK: Final = timedelta(seconds=1)  # most difference in time of rows that were written together


class Follower:
    """Remembers what it has sent. `after`: the event to resume after; None: from the start of the job."""

    def __init__(self, ctx: Context, job_id: str, after: str | None) -> None:
        self._ctx = ctx
        self._job_id = job_id
        self._after = after
        self._marks: dict[str, TrialMark] | None = None
        self._points: dict[str, set[tuple[str, int, int]]] = {}  # of the running trials
        self._spent = 0.0
        self._sent_at = datetime.min.replace(tzinfo=utc_now().tzinfo)
        self.over = False

    def look(self) -> list[News]:
        """Return what is new, in the order to send it. Raises NotFound for an unknown job or event."""
        now = utc_now()
        with self._ctx.database.read() as c:
            job = jobs.get(c, self._job_id)
            marks = trials.marks(c, self._job_id)
            new_events = events.since(c, self._job_id, self._after, MOST_EVENTS)
            changed = self._changed(c, marks, new_events)
            rows = trials.of_job(c, self._job_id) if changed or self._stale(marks, now) or self._marks is None else []
            news: list[News] = [*self._new_points(c, marks, changed)]
            repeats, seeds = history.repeats(rows), history.by_design(rows)
            news += [
                serializers.trial(job, row, repeats.get(row.number), seeds=seeds.get(row.digest, ()))
                for row in rows
                if row.id in changed
            ]
            if rows or self._marks is None or job.state.terminal:
                news.append(self._view(c, job, rows, now))
        self._marks = {mark.id: mark for mark in marks}
        if new_events:
            self._after = new_events[-1].id
        busy = len(new_events) == MOST_EVENTS or any(mark.state is TrialState.LEASED for mark in marks)
        self.over = job.state.terminal and not busy
        return [*news, *map(serializers.event, new_events)]

    def _view(self, c: Connection, job: JobRecord, rows: Sequence[TrialRecord], now: datetime) -> Job:
        rows = rows or trials.of_job(c, job.id)
        self._spent, self._sent_at = sum(row.device_seconds for row in rows), now
        left = None if job.state.terminal else costs.work_left(self._ctx, c, job, rows, now)
        return serializers.job(job, rows, now, outcome.standing(c, job, rows), left)

    def _stale(self, marks: Sequence[TrialMark], now: datetime) -> bool:
        spent = sum(mark.device_seconds for mark in marks)
        return spent != self._spent and now - self._sent_at >= REFRESH

    def _changed(self, c: Connection, marks: Sequence[TrialMark], new_events: Sequence[EventRecord]) -> set[str]:
        """Return the trials to send. At the first look, these are all that the client may have missed changes of."""
        if self._marks is not None:
            before = {trial_id: _visible(mark) for trial_id, mark in self._marks.items()}
            return {mark.id for mark in marks if before.get(mark.id) != _visible(mark)}
        if self._after is None:
            return {mark.id for mark in marks}
        since = events.get(c, self._after).created_at - SLACK
        named = {event.data["trial"] for event in new_events if event.data is not None and "trial" in event.data}
        late = {mark.id for mark in marks if max(mark.created_at, mark.finished_at or mark.created_at) >= since}
        return named | late | {mark.id for mark in marks if not mark.state.terminal}

    def _new_points(self, c: Connection, marks: Sequence[TrialMark], changed: set[str]) -> Iterable[CurvePoints]:
        """Yield the new points of trials that are running, and of those that were until now."""
        leased = {mark.id for mark in marks if mark.state is TrialState.LEASED}
        numbers = {mark.id: mark.number for mark in marks}
        watched = (
            leased
            | self._points.keys()
            | {mark.id for mark in marks if mark.id in changed and self._leased_since(mark)}
        )
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

    def _leased_since(self, mark: TrialMark) -> bool:
        """Return whether the trial may have been leased since the last look; it may have ended already."""
        if self._marks is None:
            return True
        return mark.id not in self._marks or self._marks[mark.id].fence < mark.fence


def _visible(mark: TrialMark) -> tuple[object, ...]:
    """Return what makes a trial worth sending again when it changes. Its device-seconds do not."""
    return mark.state, mark.rung, mark.goal, mark.fence, mark.finished_at
