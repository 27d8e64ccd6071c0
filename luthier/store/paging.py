"""Cursor pages in the manner of OpenAI's lists: newest first, `after` names the last row already seen."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, RowMapping, Select, Table, literal, select, tuple_

from luthier.errors import NotFound


def page(
    c: Connection, query: Select[Any], table: Table, order: tuple[str, ...], after: str | None, limit: int
) -> tuple[list[RowMapping], bool]:
    """The next `limit` rows of `query` in descending `order`, and whether more follow.

    Raises NotFound when there is no row `after`.
    """
    columns = [table.c[name] for name in order]
    if after is not None:
        seen = c.execute(select(*columns).where(table.c.id == after)).one_or_none()
        if seen is None:
            raise NotFound(f"there is no {after!r} to continue after", param="after")
        place = [literal(value, column.type) for value, column in zip(seen, columns, strict=True)]
        query = query.where(tuple_(*columns) < tuple_(*place))
    rows = c.execute(query.order_by(*(column.desc() for column in columns)).limit(limit + 1)).mappings().all()
    return list(rows[:limit]), len(rows) > limit
