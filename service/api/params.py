"""Query options that listings share."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Query

from service.schemas.requests import Tag

STORABLE: Final = r"^[^\x00]*$"  # PostgreSQL takes no NUL, also where it is only looked for

After = Annotated[str | None, Query(description="id of the last entry of the page before", max_length=200)]
Limit = Annotated[int, Query(description="entries on one page", ge=1, le=1000)]
Tags = Annotated[tuple[Tag, ...], Query(alias="tag", description="that the jobs carry; any number of times")]
OfSchedule = Annotated[
    str | None, Query(description="the schedule that the jobs were made by", max_length=200, pattern=STORABLE)
]
