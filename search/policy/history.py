"""The trials of a job as the search sees them: only the fields that proposals and rankings depend on."""

from __future__ import annotations

from typing import NamedTuple, Self

from pydantic import Field, model_validator

from luthier.design import Design
from luthier.trial import TrialState
from luthier.values import Frozen


class RungScore(NamedTuple):
    """A trial's score at a rung. Lower is better for both fields."""

    value: float  # the objective, on the subset of the validation rows that rungs use
    rank_key: tuple[float, float]  # the sort key at the rung


class Past(Frozen):
    """One trial of the job, finished or not."""

    number: int = Field(ge=0, description="0 is the untuned base, 1 the plain-LoRA default")
    design: Design
    state: TrialState
    value: float | None = Field(default=None, description="the objective, lower is better; set for complete trials")
    device_seconds: float = Field(default=0.0, ge=0)
    goal: int | None = Field(
        default=None, description="the rung at which it pauses unless promoted; None means the end"
    )
    measured: tuple[RungScore, ...] = Field(default=(), description="scores at the rungs it reached, in order")
    confirms: int | None = Field(default=None, description="the trial that this one repeats with another seed")
    split: int = Field(
        default=0, ge=0, description="the split of the rows that it is trained and scored on; 0: the one of all designs"
    )
    error: str | None = Field(default=None, description="why it failed or is infeasible")

    @property
    def refused(self) -> bool:
        """Whether it was infeasible and never launched."""
        return self.state is TrialState.INFEASIBLE and self.device_seconds == 0

    @property
    def open(self) -> bool:
        """Whether it is running or queued."""
        return self.state is TrialState.LEASED or (self.state is TrialState.WAITING and not self.paused)

    @property
    def paused(self) -> bool:
        """Whether it is paused at its goal, waiting to be promoted."""
        return self.state is TrialState.WAITING and self.goal is not None and len(self.measured) > self.goal

    def score_at(self, rung: int) -> RungScore | None:
        """Return the score at a rung; None if it has none.

        A training that has ended at its best moment would score the same at all later rungs.
        """
        if rung < len(self.measured):
            return self.measured[rung]
        ended = self.state is TrialState.COMPLETE and self.design.self_ending
        return self.measured[-1] if ended and self.measured else None

    @model_validator(mode="after")
    def _scored_when_complete(self) -> Self:
        if self.state is TrialState.COMPLETE and self.value is None:
            raise ValueError(f"trial {self.number} is complete but has no value")
        return self
