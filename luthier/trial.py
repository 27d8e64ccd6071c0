"""Jobs and trials: their states, the legal transitions between them, and the lease a worker holds while it trains.

A trial's state lives in one row of the store and changes by one SQL statement guarded by `(owner, fence)`. Losing a
machine is not a failure: the trial goes back to `waiting` and resumes from its last checkpoint.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import Field, model_validator

from luthier.design import Frozen


class JobState(StrEnum):
    """OpenAI's status words. A paused job stays `running` and says so in its own field."""

    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return not JOB_TRANSITIONS[self]


JOB_TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.VALIDATING_FILES: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class TrialState(StrEnum):
    WAITING = "waiting"
    LEASED = "leased"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return not TRIAL_TRANSITIONS[self]


TRIAL_TRANSITIONS: Final[dict[TrialState, frozenset[TrialState]]] = {
    TrialState.WAITING: frozenset({TrialState.LEASED, TrialState.PRUNED, TrialState.CANCELLED}),
    TrialState.LEASED: frozenset(
        {
            TrialState.WAITING,  # paused at a rung, or its worker was lost
            TrialState.COMPLETE,
            TrialState.PRUNED,
            TrialState.FAILED,
            TrialState.INFEASIBLE,
            TrialState.CANCELLED,
        }
    ),
    TrialState.COMPLETE: frozenset(),
    TrialState.PRUNED: frozenset(),
    TrialState.FAILED: frozenset(),
    TrialState.INFEASIBLE: frozenset(),
    TrialState.CANCELLED: frozenset(),
}


class Lease(Frozen):
    """The right to work on a trial. `fence` grows with every lease: a late report from an old one changes nothing."""

    trial_id: str
    owner: str
    fence: int = Field(ge=1)
    expires_at: datetime


class Metrics(Frozen):
    """What the judge found for one set of held-out rows. `None` means the task does not ask for it."""

    perplexity: float | None = Field(
        default=None, gt=0, description="of decoders: exp of the mean negative log-likelihood over target tokens"
    )
    pseudo_perplexity: float | None = Field(
        default=None,
        gt=0,
        exclude_if=lambda value: value is None,
        description="of encoders: the same of the pseudo-log-likelihood, where each token is predicted from all others",
    )
    bits_per_byte: float = Field(
        ge=0, description="comparable across tokenizers; for encoders made of the pseudo-log-likelihood"
    )
    reward: float | None = Field(default=None, description="mean grade of greedy generations, or preference accuracy")
    reward_name: str | None = Field(default=None, description="what the reward measures")
    tokens: int = Field(ge=1, description="target tokens scored")
    rows: int = Field(ge=1, description="held-out rows scored")

    @model_validator(mode="after")
    def _one_of_both(self) -> Metrics:
        if (self.perplexity is None) == (self.pseudo_perplexity is None):
            raise ValueError("metrics have either a perplexity or a pseudo_perplexity")
        return self

    @property
    def likelihood(self) -> tuple[str, float]:
        """The perplexity that there is, by its name."""
        if self.perplexity is not None:
            return "perplexity", self.perplexity
        assert self.pseudo_perplexity is not None
        return "pseudo-perplexity", self.pseudo_perplexity


class Point(Frozen):
    """One value on a training curve. Sent in batches; (stage, name, step) makes it idempotent."""

    stage: int = Field(ge=0)
    step: int = Field(ge=0)
    name: str = Field(max_length=64)
    value: float
    at: datetime
