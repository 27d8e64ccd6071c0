"""What workers did with trials, line by line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select

from luthier.store import tables
from luthier.store.database import insert_into
from luthier.trial import LogLine

_lines = tables.log_lines


class LeasedLine(NamedTuple):
    lease: int
    line: LogLine


def add(c: Connection, trial_id: str, lease: int, lines: Sequence[LogLine]) -> None:
    """Store a batch of a lease's lines. Lines sent again are harmless."""
    if lines:
        values = [{"trial_id": trial_id, "lease": lease, **dict(line)} for line in lines]
        c.execute(insert_into(c, _lines).on_conflict_do_nothing(), values)


def of_trial(c: Connection, trial_id: str, most: int) -> list[LeasedLine]:
    """The last ones, at most so many, in the order in which they were written."""
    query = select(_lines).where(_lines.c.trial_id == trial_id)
    latest = c.execute(query.order_by(_lines.c.lease.desc(), _lines.c.number.desc()).limit(most)).mappings().all()
    return [
        LeasedLine(row["lease"], LogLine(number=row["number"], at=row["at"], text=row["text"]))
        for row in reversed(latest)
    ]
