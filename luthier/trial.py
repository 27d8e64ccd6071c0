"""Jobs and trials: their states, the legal transitions between them, and the lease of the worker that trains a trial.

A trial's state is one row of the store and changes by one SQL statement guarded by `(owner, fence)`. If a worker is
lost, its trial goes back to `waiting` and resumes from its last checkpoint; that is not a failure of the trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import Final, Literal

from pydantic import Field, model_validator

from luthier.design import Design
from luthier.values import Frozen

# At a rung a trial is scored, compared with other trials, and possibly paused. Each rung lies RUNG_FACTOR times as far
# into the training as the one before. A training of fixed length has rungs at these shares of it.
RUNG_FACTOR: Final = 3
RUNGS: Final = (1 / RUNG_FACTOR**2, 1 / RUNG_FACTOR)
# A self-ending training (schedule `constant`) has no last rung. Rung 1 is a quarter of the training rows, within these
# limits, and at most a ninth of the longest possible training. A rung is a number of rows read, not of steps, so that
# it costs the same at every batch size.
FIRST_RUNG_SHARE, FIRST_RUNG_ROWS = 1 / 4, (256, 2048)
LEAST_RUNG_ROWS: Final = 32  # of short trainings: a step at the largest batch that is searched
# Rows, generations and (of encoders) windows that a trial is scored on at a rung and after a stage.
RUNG_ROWS, RUNG_GENERATIONS, RUNG_WINDOWS = 32, 16, 16
RUNG_PAIRS: Final = 96  # preference pairs: each is right or wrong, and 32 would have a standard error of 9 %

# A stage of a self-ending training is first scored after FIRST_MOMENT optimiser steps. Each later moment is at
# MOMENT_FACTOR times the steps of the one before. Rungs are scored in addition.
FIRST_MOMENT, MOMENT_FACTOR = 4, 1.5

TRAIN_LOSS: Final = "train_loss"  # the curve that every trained trial has


def generation_batch(tokens: int) -> int:
    """Return how many answers the judge generates at once, if prompt and answer have at most so many tokens.

    Generation reads all weights for each token of a batch, so that larger batches cost little more, until the
    attention's cache of keys and values becomes large.
    """
    return max(8, min(32, 16_384 // max(1, tokens)))


def first_rung(design: Design, rows: int) -> int:
    """Return after how many rows the first rung of a self-ending training lies, given the number of training rows."""
    least, most = FIRST_RUNG_ROWS
    at_most = int(rows * design.epochs / RUNG_FACTOR ** len(RUNGS))
    return max(LEAST_RUNG_ROWS, min(most, max(least, round(rows * FIRST_RUNG_SHARE)), at_most))


def top_rung(design: Design) -> int | None:
    """Return the last rung before the end of the training; None where the training has no fixed length."""
    return None if design.self_ending else len(RUNGS) - 1


def rung_name(design: Design, rung: int) -> str:
    """Return where a rung of a design is, as text: `1/9` of its training, or `rung 1` where it has no fixed length."""
    return f"rung {rung + 1}" if design.self_ending else str(Fraction(RUNGS[rung]).limit_denominator(100))


def rungs_reached(design: Design, state: TrialState, measured: Sequence[Metrics]) -> Sequence[Metrics]:
    """Return the metrics at the rungs that a trial reached.

    A self-ending training that is complete has reported its end as one more rung, because it would score the same
    there. That one is left out.
    """
    ended = design.self_ending and state is TrialState.COMPLETE
    return measured[:-1] if ended else measured


class JobState(StrEnum):
    """OpenAI's job statuses. A paused job stays `running`; the field `paused` says so."""

    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the job has ended. One that succeeded goes on only if a user extends it."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


JOB_TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.VALIDATING_FILES: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset({JobState.QUEUED}),  # its search is extended
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
        """Whether the trial has ended. A pruned one goes on only if its job is extended and its checkpoint was kept."""
        return self not in (TrialState.WAITING, TrialState.LEASED)


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
    TrialState.PRUNED: frozenset({TrialState.WAITING}),  # paused again, as its job is extended
    TrialState.FAILED: frozenset(),
    TrialState.INFEASIBLE: frozenset(),
    TrialState.CANCELLED: frozenset(),
}


class Lease(Frozen):
    """The right to work on a trial. `fence` grows with every lease, so a report under an old lease has no effect."""

    trial_id: str
    owner: str
    fence: int = Field(ge=1)
    expires_at: datetime


class Metrics(Frozen):
    """What the judge found for one set of held-out rows. `None` means the task does not ask for it."""

    perplexity: float | None = Field(
        default=None, gt=0, description="for decoders: exp of the mean negative log-likelihood over target tokens"
    )
    pseudo_perplexity: float | None = Field(
        default=None,
        gt=0,
        exclude_if=lambda value: value is None,
        description="for encoders: the same with the pseudo-log-likelihood: each token is predicted from all others",
    )
    bits_per_byte: float = Field(
        ge=0, description="comparable across tokenizers; for encoders computed from the pseudo-log-likelihood"
    )
    reward: float | None = Field(default=None, description="mean grade of greedy generations, or preference accuracy")
    reward_name: str | None = Field(default=None, description="what the reward measures")
    margin: float | None = Field(
        default=None,
        exclude_if=lambda margin: margin is None,
        description="for preferences, paired or not: how much likelier the better answers are, in nats per token; it "
        "changes long before the reward, which counts correctly ranked answers",
    )
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


class RowScores(Frozen):
    """The judge's scores of each held-out row, in the order of the rows; confidence intervals are computed from them.

    `reward` is the grade of each row (of a preference pair 1, 0, or 0.5 for a tie), for the rows that were graded, from
    the first on. For unpaired preference labels (KTO) the metric is the area under the ROC curve, which is not a mean
    over rows. There `reward` is the log-likelihood per token of each row, and `labels` are the classes.
    """

    nll: tuple[float, ...] = Field(description="negative log-likelihood of the row's targets, in nats")
    tokens: tuple[int, ...] = Field(description="target tokens of the row")
    bytes: tuple[float, ...] = Field(description="bytes of the targets' text")
    reward: tuple[float, ...] | None = None
    labels: tuple[bool, ...] | None = Field(default=None, description="unpaired rows: whether each is desirable")
    general_bits_per_byte: float | None = Field(
        default=None, description="bits per byte of a general text; a rise means catastrophic forgetting"
    )


class Usage(Frozen):
    """Memory and time of the last lease of a trial, measured by its worker; the cost model is calibrated with it."""

    peak_memory_bytes: int = Field(
        ge=0, description="peak memory of the device; on a CPU that of the whole worker process"
    )
    train_seconds: float = Field(ge=0, description="spent in training steps, without scoring")
    train_tokens: int = Field(ge=0, description="tokens trained on in those seconds")
    steps: int = Field(ge=0, description="training steps in those seconds")
    judge_seconds: float = Field(ge=0, description="spent in scoring, at rungs and at the end")
    judged_rows: int = Field(ge=0, description="rows scored in those seconds")


# Why a stage ended: at its limit of epochs or steps; as its best moment was long past (early stopping); as the job's
# budget ended; or as a user stopped the trial.
StageEnd = Literal["limit", "best_long_past", "budget", "user"]


class StageLength(Frozen):
    """How long a stage was trained, and how long to the weights that are its result."""

    steps: int = Field(ge=0, description="optimiser steps to the stage's result: under `constant` its best moment")
    epochs: float = Field(ge=0, description="the same in passes over the training rows")
    trained: int = Field(ge=0, description="optimiser steps that were trained")
    ended: StageEnd | None = Field(
        default=None, description="why it ended; null for trials of versions that did not record it"
    )

    @property
    def improving(self) -> bool:
        """Whether the last score of the stage was its best one, so that its length was too short."""
        return self.steps == self.trained


class Point(Frozen):
    """One value on a training curve. Sending one twice is harmless: (stage, name, step) identifies it."""

    stage: int = Field(ge=0)
    step: int = Field(ge=0)
    name: str = Field(max_length=64)
    value: float
    at: datetime


class LogLine(Frozen):
    """One log line of a worker about a trial. Sending one twice is harmless: (lease, number) identifies it."""

    number: int = Field(ge=0, description="position in the log of the lease, from 0")
    at: datetime
    text: str = Field(max_length=2000)


class Sample(Frozen):
    """A short greedy answer to a held-out prompt. The prompts are the same for all trials of a job."""

    prompt: str = Field(description="the prompt as plain text; for text rows the beginning of the text")
    reference: str | None = Field(default=None, description="the reference answer, if the row has one")
    answer: str
