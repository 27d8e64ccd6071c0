"""What charts and streams read from the store, on both databases."""

import pytest
from sqlalchemy import Connection

from luthier.errors import NotFound
from luthier.store import events, measurements, trials
from luthier.store.database import Database
from luthier.store.rows import EventRecord
from luthier.trial import Point, TrialState
from tests.integration.store_samples import NOW, add_job, add_trial, after, lease


def point(step: int, value: float, name: str = "loss", stage: int = 0) -> Point:
    return Point(stage=stage, step=step, name=name, value=value, at=after(step))


def test_a_curve_of_all_trials_is_read_by_stage_and_step(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        add_job(c, "ftjob-b", after(1))
        first, second, bare = (add_trial(c, number=number) for number in range(3))
        other = add_trial(c, "ftjob-b")
        measurements.add(
            c, first.id, [point(9, 2.0), point(10, 1.0), point(1, 4.0, stage=1), point(5, 0.1, name="rate")]
        )
        measurements.add(c, second.id, [point(3, 0.5)])
        measurements.add(c, other.id, [point(1, 8.0, name="elsewhere")])
        assert measurements.of_job(c, "ftjob-a", "loss") == {
            first.id: [(0, 9, 2.0), (0, 10, 1.0), (1, 1, 4.0)],
            second.id: [(0, 3, 0.5)],
        }
        assert measurements.of_job(c, "ftjob-a", "absent") == {}
        assert measurements.names(c, "ftjob-a") == ["loss", "rate"]
        assert measurements.counts(c, {first.id, bare.id}) == {first.id: 4}
        assert measurements.counts(c, set()) == {}


def test_events_are_read_on_from_one_that_was_seen(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        add_job(c, "ftjob-b", after(1))
        said = [say(c, "ftjob-a", n, None if n % 2 else {"number": n}) for n in range(4)]
        say(c, "ftjob-b", 9, {"number": 9})
        assert events.since(c, "ftjob-a", None, 10) == said
        assert events.since(c, "ftjob-a", said[1].id, 1) == [said[2]]
        assert events.since(c, "ftjob-a", said[-1].id, 10) == []
        assert events.with_data(c, "ftjob-a") == said[::2]
        with pytest.raises(NotFound, match="ftevent-x"):
            events.since(c, "ftjob-a", "ftevent-x", 10)


def test_marks_say_how_far_each_trial_is(database: Database) -> None:
    with database.begin() as c:
        add_job(c)
        add_trial(c, number=0)
        waiting = add_trial(c, number=1)
        held = lease(c)
        marks = trials.marks(c, "ftjob-a")
        assert [(mark.number, mark.state, mark.fence) for mark in marks] == [
            (0, TrialState.LEASED, 1),
            (1, TrialState.WAITING, 0),
        ]
        assert (marks[0].id, marks[1].id, marks[1].created_at) == (held.id, waiting.id, waiting.created_at)


def say(c: Connection, job_id: str, number: int, data: dict[str, int] | None) -> EventRecord:
    return events.add(c, job_id, "info", "message", f"line {number}", NOW, data)
