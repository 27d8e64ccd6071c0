"""When a schedule is due: cron expressions of five fields in a time zone, with the semantics of Debian's cron.

When daylight saving time starts, a time of day that is skipped runs at the next one that exists. When it ends, a time
of day that occurs twice runs once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from luthier.errors import UserError
from luthier.schedule import CatchUp, RunState, Trigger

FIELDS: Final = 5
LISTED: Final = 100  # most ticks recorded after a long downtime


class Tick(NamedTuple):
    """A tick, and what to do about it."""

    at: datetime
    trigger: Trigger
    state: RunState
    reason: str | None


def check(cron: str, time_zone: str, now: datetime) -> None:
    """Raise UserError for an invalid cron expression, one that never matches, or an unknown time zone."""
    if time_zone not in available_timezones():
        raise UserError(
            f"{time_zone!r} is not a time zone; expected a name of the IANA database, such as UTC or Europe/Berlin",
            param="time_zone",
        )
    fields = len(cron.split())
    if fields != FIELDS:
        raise UserError(
            f"{cron!r} has {fields} field(s); expected five: minute, hour, day of month, month, day of week, such as "
            "'30 3 * * MON-FRI'",
            param="cron",
        )
    try:
        first = first_after(cron, time_zone, now)
    except CronSimError as error:
        raise UserError(
            f"{cron!r} is not a cron expression: {error}; such as '30 3 * * MON-FRI'", param="cron"
        ) from error
    if first is None:
        raise UserError(f"{cron!r} never matches a date", param="cron")


def first_after(cron: str, time_zone: str, moment: datetime) -> datetime | None:
    return next(_after(cron, time_zone, moment), None)


def upcoming(cron: str, time_zone: str, first: datetime, count: int) -> list[datetime]:
    """Return the next ticks, `first` included."""
    return list(islice(_after(cron, time_zone, first - timedelta(seconds=1)), count))


def decide(
    cron: str,
    time_zone: str,
    first: datetime,
    now: datetime,
    *,
    grace: timedelta,
    catch_up: CatchUp,
    window: timedelta,
) -> list[Tick]:
    """Return what to do about the ticks from `first` to `now`, the earliest first; at most the latest hundred.

    A tick noticed within `grace` runs. A later one is missed, unless `catch_up` applies to it and it lies in `window`.
    """
    every = takewhile(lambda tick: tick <= now, _after(cron, time_zone, first - timedelta(seconds=1)))
    ticks = deque(every, LISTED)
    late = [tick for tick in ticks if now - tick > grace]
    caught_up = set(_caught_up(late, now, catch_up, window, superseded=len(late) < len(ticks)))
    return [
        Tick(tick, "cron", RunState.WAITING, None)
        if now - tick <= grace
        else Tick(tick, "catch_up", RunState.WAITING, f"caught up, {_late(now - tick)} late")
        if tick in caught_up
        else Tick(tick, "cron", RunState.MISSED, f"noticed {_late(now - tick)} late")
        for tick in ticks
    ]


def _caught_up(
    late: Sequence[datetime], now: datetime, catch_up: CatchUp, window: timedelta, *, superseded: bool
) -> Sequence[datetime]:
    """`superseded`: a later tick is on time, so that the latest missed one need not be caught up."""
    recent = [tick for tick in late if now - tick <= window]
    match catch_up:
        case CatchUp.NONE:
            return ()
        case CatchUp.LATEST:
            return () if superseded else recent[-1:]
        case CatchUp.ALL:
            return recent


def _after(cron: str, time_zone: str, moment: datetime) -> Iterator[datetime]:
    return (tick.astimezone(UTC) for tick in CronSim(cron, moment.astimezone(ZoneInfo(time_zone))))


def _late(delay: timedelta) -> str:
    seconds = int(delay.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
