"""The report of a job: which design won, how sure that is, and what the others were worth.

Every figure in it comes from the job's rows; sentences (`words`) say the same for people. Scores are in the objective's
own units: bits per byte, where less is better, or the reward, where more is.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from luthier.api_types import Resource
from luthier.design import Design
from luthier.task import DataKind, Objective
from luthier.trial import JobState, Metrics

Verdict = Literal["better beyond the noise", "not distinguishable", "worse beyond the noise"]
Baseline = Literal["untuned base", "plain-LoRA default", "runner-up"]


class TaskReport(Resource):
    """What was to be learnt, and from what."""

    kind: DataKind
    file: str | None = Field(description="name of the uploaded file; None where an environment made the rows")
    environment: str | None
    train_rows: int
    validation_rows: int = Field(description="which chose between the designs")
    test_rows: int = Field(description="which no proposal ever saw")
    models: tuple[str, ...] = Field(description="base models of the designs tried")
    words: tuple[str, ...]


class JudgeReport(Resource):
    """How designs were scored."""

    objective: Objective
    unit: str = Field(description="what scores are in")
    lower_is_better: bool
    validation_rows: int = Field(description="scored of the validation rows")
    test_rows: int = Field(description="scored of the test rows")
    words: tuple[str, ...]


class OriginReport(Resource):
    origin: str = Field(description="baseline, prior, memory, proposed, confirmation or user")
    trials: int
    device_seconds: float


class BudgetReport(Resource):
    """What was asked for, and what was spent on what."""

    trials: int = Field(description="designs asked for")
    device_seconds: float | None = Field(description="asked for; None: no limit")
    deadline: datetime | None
    designs: int = Field(description="tried, those that cannot run left out")
    complete: int = Field(description="designs that were trained to their end")
    stopped: int = Field(description="designs that were stopped at a rung")
    confirmations: int = Field(description="trainings of the best from other seeds")
    spent: float = Field(description="device-seconds")
    by_origin: tuple[OriginReport, ...]
    saved: float = Field(description="device-seconds that the stopped designs would have taken to their end, estimated")
    saved_share: float | None = Field(description="of what all designs would have taken; None where none was stopped")
    ended: str | None = Field(description="why no further trial was started")
    words: tuple[str, ...]


class AxisWords(Resource):
    axis: Literal["task and dataset", "learning algorithm", "weight update", "architecture"]
    words: tuple[str, ...]


class WinnerReport(Resource):
    """The best design on the validation rows, explained along the four axes."""

    trial: str
    number: int
    summary: str
    design: Design
    score: float = Field(description="on the validation rows, as the mean over its seeds")
    metrics: Metrics = Field(description="of its first seed on the validation rows")
    test_metrics: Metrics | None
    parameters: int | None = Field(description="of the model in use; None where the base is not registered any more")
    device_seconds: float
    axes: tuple[AxisWords, ...]


class ComparisonReport(Resource):
    """The winner against another on the test rows, with 95 % intervals."""

    against: Baseline
    number: int
    summary: str
    winner_score: float
    other_score: float
    difference: float = Field(description="winner minus other")
    low: float
    high: float
    perplexity_ratio: tuple[float, float, float] | None = Field(
        description="winner over other, and its interval; None where the objective is no perplexity"
    )
    verdict: Verdict
    rows: int
    seeds: tuple[int, int] = Field(description="of the winner, and of the other")
    words: str


class Recommendation(Resource):
    take: Literal["winner", "plain-LoRA default", "untuned base"] | None
    number: int | None
    words: tuple[str, ...]


class SeedScore(Resource):
    trial: int
    seed: int
    validation: float
    test: float | None


class SeedsReport(Resource):
    """A design's scores from each seed that it was trained from."""

    number: int
    summary: str
    seeds: tuple[SeedScore, ...]
    validation_mean: float
    test_mean: float | None
    spread: float | None = Field(description="highest minus lowest validation score; None for one seed")


class ForgettingReport(Resource):
    """Bits per byte on a general text that no task is about."""

    base: float
    winner: float
    change: float = Field(description="winner over base, minus 1")
    words: str


class AxisReport(Resource):
    """What an axis was worth."""

    axis: str
    group: Literal["learning algorithm", "weight update", "architecture", "hyperparameters"]
    values: int
    trials: int
    share: float | None = Field(description="of the variance of the designs' standing; None where it cannot be told")
    weak: bool
    default: str | None
    best: str | None
    worth: float | None = Field(description="how much worse the best would be, had the axis stayed at the default")


class FrontReport(Resource):
    """A design that no other beats in quality, size and training cost at once."""

    number: int
    summary: str
    score: float = Field(description="on the validation rows")
    parameters: int | None
    device_seconds: float


class TriedReport(Resource):
    number: int
    summary: str
    origin: str
    state: str = Field(description="in words: complete, stopped at 1/9, failed, …")
    confirms: int | None
    share: float = Field(description="of its training that was done when it was last scored")
    score: float | None = Field(description="on the validation rows; at the last rung where it was not complete")
    test_score: float | None
    device_seconds: float


class RejectedReport(Resource):
    number: int
    summary: str
    words: str


class Report(Resource):
    """All that a job has found out. While it runs, what it has found out so far."""

    object: Literal["fine_tuning.job.report"] = "fine_tuning.job.report"
    job: str
    status: JobState
    fine_tuned_model: str | None
    created_at: int
    finished_at: int | None
    headline: str
    missing: tuple[str, ...] = Field(description="what is not known yet, or will not be, and why")
    task: TaskReport
    judge: JudgeReport
    budget: BudgetReport
    winner: WinnerReport | None
    comparisons: tuple[ComparisonReport, ...]
    recommendation: Recommendation
    seeds: tuple[SeedsReport, ...] = Field(description="of the finalists and the default")
    forgetting: ForgettingReport | None
    axes: tuple[AxisReport, ...]
    front: tuple[FrontReport, ...]
    tried: tuple[TriedReport, ...]
    rejected: tuple[RejectedReport, ...]
    weaknesses: tuple[str, ...] = Field(description="of the evidence")
    next_steps: tuple[str, ...] = Field(description="what to try with ten times the budget")
