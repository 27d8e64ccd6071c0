"""The report of a job: which design won, how reliable that is, and how the other designs compare.

Every figure is computed from the job's stored rows. `words` are the same facts as sentences. Scores are in the units of
the objective: bits per byte (lower is better) or the reward (higher is better).
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from luthier.api_types import Recommendation, Resource, TrialSample
from luthier.design import Design
from luthier.task import DataKind, Objective
from luthier.trial import JobState, Metrics

Verdict = Literal["better beyond the noise", "not distinguishable", "worse beyond the noise"]
Baseline = Literal["untuned base", "plain-LoRA default", "runner-up"]


class TaskReport(Resource):
    """The task and its data."""

    kind: DataKind
    file: str | None = Field(description="name of the uploaded file; None if an environment made the rows")
    environment: str | None
    train_rows: int
    validation_rows: int = Field(description="rows that the designs were ranked on")
    test_rows: int = Field(description="rows that the search never saw")
    models: tuple[str, ...] = Field(description="base models of the tried designs")
    words: tuple[str, ...]


class JudgeReport(Resource):
    """How designs were scored."""

    objective: Objective
    unit: str = Field(description="unit of the scores")
    lower_is_better: bool
    validation_rows: int = Field(description="validation rows that are scored")
    test_rows: int = Field(description="test rows that are scored")
    splits: int = Field(
        default=1,
        description="splits of the training and validation rows that finalists were compared on; 1: only the first one",
    )
    smallest_difference: float | None = Field(
        default=None,
        description="smallest difference between two designs that the test rows and seeds can tell: half of the 95 % "
        "interval against the runner-up, else against a baseline",
    )
    words: tuple[str, ...]


class OriginReport(Resource):
    """How many trials came from one source, and what they cost."""

    origin: str = Field(
        description="baseline, prior, memory (warm start), proposed, confirmation (repeat with another seed) or user"
    )
    trials: int
    device_seconds: float


class BudgetReport(Resource):
    """The budget, and what it was spent on."""

    trials: int = Field(description="trials in the budget")
    device_seconds: float | None = Field(description="device-seconds in the budget; None: no limit")
    deadline: datetime | None
    designs: int = Field(description="designs tried, without those that cannot run")
    complete: int = Field(description="designs that were trained to the end")
    stopped: int = Field(description="designs that were stopped at a rung")
    confirmations: int = Field(description="repeats of the best designs with other seeds")
    spent: float = Field(description="device-seconds spent")
    by_origin: tuple[OriginReport, ...]
    saved: float = Field(description="estimated device-seconds saved by stopping designs at rungs (early stopping)")
    saved_share: float | None = Field(
        description="saved, as a share of the cost of all designs; None if none was stopped"
    )
    ended: str | None = Field(description="why no further trial was started")
    words: tuple[str, ...]


class AxisWords(Resource):
    axis: Literal["task and dataset", "learning algorithm", "weight update", "architecture"]
    words: tuple[str, ...]


class WinnerReport(Resource):
    """The best design on the validation rows, explained axis by axis."""

    trial: str
    number: int
    summary: str
    design: Design
    score: float = Field(description="mean over its seeds on the validation rows")
    seeds: int = Field(default=1, ge=1, description="number of its seeds")
    metrics: Metrics = Field(description="of its first seed on the validation rows; the means are in `scores`")
    test_metrics: Metrics | None = Field(description="of its first seed on the test rows; the means are in `scores`")
    parameters: int | None = Field(description="parameters of the model; None if the base is no longer registered")
    device_seconds: float
    axes: tuple[AxisWords, ...]


class ComparisonReport(Resource):
    """The winner compared with another design on the test rows, with 95 % confidence intervals."""

    against: Baseline
    number: int
    summary: str
    winner_score: float
    other_score: float
    difference: float = Field(description="winner minus other")
    low: float
    high: float
    perplexity_ratio: tuple[float, float, float] | None = Field(
        description="winner's perplexity over the other's, and its interval; None for other objectives"
    )
    verdict: Verdict
    rows: int
    seeds: tuple[int, int] = Field(description="number of seeds of the winner, and of the other design")
    words: str


class SeedScore(Resource):
    trial: int
    seed: int
    split: int = Field(default=0, description="the split of the rows that it was trained and validated on")
    validation: float
    test: float | None


class SeedsReport(Resource):
    """The scores of a design with each seed."""

    number: int
    summary: str
    seeds: tuple[SeedScore, ...]
    validation_mean: float
    test_mean: float | None
    spread: float | None = Field(
        description="highest minus lowest validation score; None for one seed. Differences between splits of the "
        "rows do not count"
    )


class ForgettingReport(Resource):
    """Catastrophic forgetting: bits per byte of a general text before and after training."""

    base: float
    winner: float
    change: float = Field(description="relative change: winner over base, minus 1")
    words: str


class AxisReport(Resource):
    """The importance of one axis of the design space."""

    axis: str
    group: Literal["learning algorithm", "weight update", "architecture", "hyperparameters"]
    values: int
    trials: int
    share: float | None = Field(description="share of the variance of the designs' ranks; None with too few trials")
    weak: bool = Field(description="whether there are too few trials for a reliable share")
    default: str | None
    best: str | None
    default_text: str | None = Field(
        default=None, description="the same for people: a learning rate as a number, with its multiplier"
    )
    best_text: str | None = None
    worth: float | None = Field(description="how much worse the best score is with this axis at its default")


class FrontReport(Resource):
    """A Pareto-optimal design: no other design is better in score, size and training cost."""

    number: int
    summary: str
    score: float = Field(description="on the validation rows, mean over its seeds")
    seeds: int = Field(default=1, ge=1, description="number of its seeds")
    parameters: int | None
    device_seconds: float


class TriedReport(Resource):
    number: int
    summary: str
    origin: str
    state: str = Field(description="state as text: complete, stopped at 1/9, failed, …")
    confirms: int | None = Field(description="for a repeat: the trial that it repeats with another seed")
    share: float | None = Field(
        description="share of its training that was done at its last score; None if it might have gone on"
    )
    score: float | None = Field(
        description="its own on the validation rows; that of the last rung if it was not complete"
    )
    test_score: float | None = Field(description="its own on the test rows")
    seeds: int | None = Field(default=None, description="seeds of a complete design; null for repeats and the base")
    mean_score: float | None = Field(
        default=None, description="the mean over the design's seeds on the validation rows; `score` where it has none"
    )
    mean_test_score: float | None = Field(default=None, description="the same on the test rows")
    device_seconds: float


class ScoreReport(Resource):
    """All metrics of a design: the likelihood and, where answers are graded, the reward. Means over its seeds."""

    number: int
    role: Literal["recommended", "winner", "plain-LoRA default", "untuned base"]
    summary: str
    seeds: int | None = Field(description="number of its seeds; null for the untuned base, which has none")
    metrics: Metrics = Field(description="on the validation rows")
    test_metrics: Metrics | None = Field(description="on the test rows")


class AnswersReport(Resource):
    """Greedy answers of a trial to held-out prompts, beside those of the untuned base."""

    number: int
    answers: tuple[TrialSample, ...]


class RejectedReport(Resource):
    number: int
    summary: str
    words: str


class Report(Resource):
    """The results of a job; while it runs, the results so far."""

    object: Literal["fine_tuning.job.report"] = "fine_tuning.job.report"
    job: str
    status: JobState
    fine_tuned_model: str | None
    created_at: int
    finished_at: int | None
    headline: str
    missing: tuple[str, ...] = Field(description="results that are not available, each with the reason")
    task: TaskReport
    judge: JudgeReport
    budget: BudgetReport
    winner: WinnerReport | None
    comparisons: tuple[ComparisonReport, ...]
    recommendation: Recommendation
    scores: tuple[ScoreReport, ...] = Field(
        default=(), description="metrics of the recommended trial, the winner and the baselines"
    )
    answers: AnswersReport | None = Field(
        default=None, description="of the recommended trial, or of the winner if the base is recommended"
    )
    seeds: tuple[SeedsReport, ...] = Field(description="scores by seed of the finalists and the plain LoRA default")
    forgetting: ForgettingReport | None
    axes: tuple[AxisReport, ...]
    front: tuple[FrontReport, ...]
    tried: tuple[TriedReport, ...]
    rejected: tuple[RejectedReport, ...]
    weaknesses: tuple[str, ...] = Field(description="caveats about the evidence")
    next_steps: tuple[str, ...] = Field(description="suggestions for a search with ten times the budget")
