"""Query options that listings share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

After = Annotated[str | None, Query(description="id of the last entry of the page before", max_length=200)]
Limit = Annotated[int, Query(description="entries on one page", ge=1, le=1000)]
