"""What the search knows of a job's trials: rows of the store, reduced to what proposals and the choice depend on."""

from __future__ import annotations

from typing import NamedTuple, Self

from pydantic import Field, model_validator

from luthier.design import Design, Frozen
from luthier.trial import TrialState


class RungScore(NamedTuple):
    """How a trial did at a rung; lower is better of both."""

    value: float  # the objective on the few rows that are scored there
    rank_key: tuple[float, float]  # what it is compared by with others at the rung


class Past(Frozen):
    """One trial of the job, finished or not."""

    number: int = Field(ge=0, description="0 is the untuned model, 1 the plain LoRA default")
    design: Design
    state: TrialState
    value: float | None = Field(default=None, description="the objective, lower is better; set on complete trials")
    device_seconds: float = Field(default=0.0, ge=0)
    goal: int | None = Field(default=None, description="the rung at which it pauses unless promoted; None: the end")
    measured: tuple[RungScore, ...] = Field(default=(), description="at the rungs reached, in their order")
    confirms: int | None = Field(default=None, description="the trial whose design this one trains from another seed")

    error: str | None = Field(default=None, description="why it failed or cannot run")

    @property
    def refused(self) -> bool:
        """Whether it was found unable to run before it was launched."""
        return self.state is TrialState.INFEASIBLE and self.device_seconds == 0

    @property
    def open(self) -> bool:
        """Whether a worker has it, or may take it."""
        return self.state is TrialState.LEASED or (self.state is TrialState.WAITING and not self.paused)

    @property
    def paused(self) -> bool:
        """Whether it waits at its goal to be promoted."""
        return self.state is TrialState.WAITING and self.goal is not None and len(self.measured) > self.goal

    @model_validator(mode="after")
    def _scored_when_complete(self) -> Self:
        if self.state is TrialState.COMPLETE and self.value is None:
            raise ValueError(f"trial {self.number} is complete but has no value")
        return self
