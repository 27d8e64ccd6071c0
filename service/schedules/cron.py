"""When a schedule is due: cron expressions of five fields on the clocks of a time zone, as Debian's cron reads them.

Where a clock is put forward, a time of day that does not exist comes at the next one that does; where it is put back,
a time of day that comes twice counts once.
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
LISTED: Final = 100  # of the ticks that a long absence has missed


class Tick(NamedTuple):
    """What is to become of a tick."""

    at: datetime
    trigger: Trigger
    state: RunState
    reason: str | None


def check(cron: str, time_zone: str, now: datetime) -> None:
    """Raises UserError for what is no cron expression or no time zone, or never comes."""
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
        raise UserError(f"{cron!r} names a date that never comes", param="cron")


def first_after(cron: str, time_zone: str, moment: datetime) -> datetime | None:
    return next(_after(cron, time_zone, moment), None)


def upcoming(cron: str, time_zone: str, first: datetime, count: int) -> list[datetime]:
    """The first ticks from `first` on, itself included."""
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
    """What is to become of the ticks from `first` to `now`, the earliest first; of very many the latest hundred."""
    every = takewhile(lambda tick: tick <= now, _after(cron, time_zone, first - timedelta(seconds=1)))
    ticks = deque(every, LISTED)
    late = [tick for tick in ticks if now - tick > grace]
    made_up = set(_made_up(late, now, catch_up, window, superseded=len(late) < len(ticks)))
    return [
        Tick(tick, "cron", RunState.WAITING, None)
        if now - tick <= grace
        else Tick(tick, "catch_up", RunState.WAITING, f"made up for, {_late(now - tick)} late")
        if tick in made_up
        else Tick(tick, "cron", RunState.MISSED, f"noticed {_late(now - tick)} late")
        for tick in ticks
    ]


def _made_up(
    late: Sequence[datetime], now: datetime, catch_up: CatchUp, window: timedelta, *, superseded: bool
) -> Sequence[datetime]:
    """`superseded`: a tick that is on time follows, which does for the latest one as well."""
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
