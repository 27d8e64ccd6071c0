"""When schedules are due: clocks that jump, ticks that come late, and what is no cron expression."""

from datetime import UTC, datetime, timedelta

import pytest

from luthier.errors import UserError
from luthier.schedule import CatchUp, RunState
from service.schedules import cron

NOON = datetime(2026, 3, 29, 12, 0, 10, tzinfo=UTC)
HOURLY = "0 * * * *"


def decide(
    hours: int, catch_up: CatchUp, *, grace: float = 300, window: float = 86400, now: datetime = NOON
) -> list[tuple[int, str, RunState]]:
    """Of an hourly schedule that nobody has looked at for so many hours: hour, trigger and state of each tick."""
    found = cron.decide(
        HOURLY,
        "UTC",
        now.replace(minute=0, second=0) - timedelta(hours=hours),
        now,
        grace=timedelta(seconds=grace),
        catch_up=catch_up,
        window=timedelta(seconds=window),
    )
    return [(tick.at.hour, tick.trigger, tick.state) for tick in found]


def test_a_tick_is_due_at_its_time_of_day_in_its_zone() -> None:
    winter, summer = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 7))
    found = [cron.first_after("30 3 * * *", "Europe/Berlin", moment) for moment in (winter, summer)]
    assert found == [winter.replace(hour=2, minute=30), summer.replace(hour=1, minute=30)]


def test_a_time_that_does_not_exist_comes_at_the_next_that_does_and_one_that_comes_twice_counts_once() -> None:
    forward = cron.upcoming("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC), 2)
    assert forward == [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 3, 30, 0, 30, tzinfo=UTC)]
    back = cron.upcoming("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC), 2)
    assert back == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 26, 1, 30, tzinfo=UTC)]


def test_sunday_is_sunday() -> None:
    assert cron.first_after("0 0 * * 0", "UTC", NOON) == datetime(2026, 4, 5, tzinfo=UTC)


def test_a_tick_within_the_grace_is_run() -> None:
    assert decide(0, CatchUp.NONE) == [(12, "cron", RunState.WAITING)]


def test_late_ticks_are_missed_where_nothing_is_made_up_for() -> None:
    late = NOON + timedelta(minutes=10)
    assert decide(1, CatchUp.NONE, now=late) == [(11, "cron", RunState.MISSED), (12, "cron", RunState.MISSED)]


def test_the_latest_late_tick_is_made_up_for() -> None:
    late = NOON + timedelta(minutes=10)
    assert decide(1, CatchUp.LATEST, now=late) == [(11, "cron", RunState.MISSED), (12, "catch_up", RunState.WAITING)]


def test_a_tick_that_is_on_time_does_for_the_latest_late_one() -> None:
    assert decide(1, CatchUp.LATEST) == [(11, "cron", RunState.MISSED), (12, "cron", RunState.WAITING)]


def test_all_late_ticks_within_the_window_are_made_up_for() -> None:
    assert decide(3, CatchUp.ALL, window=2.5 * 3600) == [
        (9, "cron", RunState.MISSED),
        (10, "catch_up", RunState.WAITING),
        (11, "catch_up", RunState.WAITING),
        (12, "cron", RunState.WAITING),
    ]


def test_of_a_long_absence_the_latest_hundred_ticks_are_listed() -> None:
    found = decide(1000, CatchUp.NONE)
    assert len(found) == cron.LISTED
    assert found[-1] == (12, "cron", RunState.WAITING)


@pytest.mark.parametrize(
    ("expression", "zone", "param", "words"),
    [
        ("* * * *", "UTC", "cron", "has 4 field"),
        ("* * * * * *", "UTC", "cron", "has 6 field"),
        ("61 * * * *", "UTC", "cron", "not a cron expression"),
        ("0 0 30 2 *", "UTC", "cron", "not a cron expression"),
        (HOURLY, "Europe", "time_zone", "not a time zone"),
        (HOURLY, "../etc/passwd", "time_zone", "IANA"),
    ],
)
def test_what_is_never_due_is_refused(expression: str, zone: str, param: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        cron.check(expression, zone, NOON)
    assert caught.value.param == param
