"""What a schedule does about ticks that overlap or come late, what becomes of a tick, and of a champion."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from luthier.design import Frozen
from luthier.task import Objective

Trigger = Literal["cron", "catch_up", "manual"]
AliasOrigin = Literal["schedule", "user", "rollback"]


class Overlap(StrEnum):
    """What is done with a run while a job of an earlier one has not ended."""

    SKIP = "skip"
    QUEUE = "queue"
    REPLACE = "replace"
    ALLOW = "allow"


class CatchUp(StrEnum):
    """Which of the ticks that came too late, as the service was not there, are made up for."""

    NONE = "none"
    LATEST = "latest"
    ALL = "all"


class RunState(StrEnum):
    """`waiting → running → succeeded | failed | cancelled`, as its job; or never run: `skipped`, `missed`. A run whose
    job could not be created has `failed` too."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    MISSED = "missed"

    @property
    def open(self) -> bool:
        return self in (RunState.WAITING, RunState.RUNNING)


class Contest(Frozen):
    """How the winner of a job did against the champion, on the test rows of that job."""

    champion: str = Field(description="the model that the alias named; the base model where it named none yet")
    promoted: bool = Field(description="whether the alias names the winner now")
    why: str = Field(description="in words")
    objective: Objective
    difference: float | None = Field(
        default=None, description="winner minus champion, in bits per byte (less is better) or reward (more is)"
    )
    low: float | None = Field(default=None, description="of the 95% interval")
    high: float | None = None
    rows: int | None = Field(default=None, description="test rows that both were scored on")
