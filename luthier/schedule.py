"""Values of schedules: policies for overlapping and missed ticks, states of runs, and champion comparisons."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from luthier.task import Objective
from luthier.values import Frozen

Trigger = Literal["cron", "catch_up", "manual"]
AliasOrigin = Literal["schedule", "user", "rollback"]


class Overlap(StrEnum):
    """What to do with a run while the job of an earlier run is still active."""

    SKIP = "skip"
    QUEUE = "queue"
    REPLACE = "replace"
    ALLOW = "allow"


class CatchUp(StrEnum):
    """Which missed ticks to run after the service was down."""

    NONE = "none"
    LATEST = "latest"
    ALL = "all"


class RunState(StrEnum):
    """`waiting → running → succeeded | failed | cancelled` as the run's job; `skipped` and `missed` runs have no job.

    A run is also `failed` if its job could not be created.
    """

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
    """How the winner of a job compares with the champion on the test rows of that job."""

    champion: str = Field(description="the model that the alias pointed to; the base model if it pointed to none yet")
    promoted: bool = Field(description="whether the alias now points to the winner")
    why: str = Field(description="the reason, as a sentence")
    objective: Objective
    difference: float | None = Field(
        default=None, description="winner minus champion: bits per byte (lower is better) or reward (higher is better)"
    )
    low: float | None = Field(default=None, description="lower end of the 95 % interval")
    high: float | None = Field(default=None, description="upper end of the 95 % interval")
    rows: int | None = Field(default=None, description="test rows that both were scored on")
