"""The registry of metrics and training curves: name, label, unit, direction, and where each is shown.

The event log, tables, pages, charts, reports, model cards, exports and trackers read it. A new metric needs a
`MetricSpec` in `METRICS`, a field of `luthier.trial.Metrics` (the stored shape), its computation in
`workers/evaluate/judge.py`, and a case in `tests/unit/test_metrics_registry.py`. A new curve needs a `CurveSpec` in
`CURVES` and a training step that reports it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, geometric_mean
from typing import Any, Final, Literal, get_args

from luthier.errors import MissingMetric
from luthier.task import DataKind, JudgeSpec, Objective
from luthier.trial import TRAIN_LOSS, Metrics, RowScores

Place = Literal[
    "log",  # sentences of the event log and of a worker's log
    "headline",  # the one line that the command line shows of a trial
    "terminal",  # tables of the command line
    "leaderboard",
    "compare",
    "trial",
    "models",
    "card",
    "trackers",  # MLflow and TensorBoard
    "export",  # the leaderboard as CSV or JSON
]
EVERYWHERE: Final[frozenset[Place]] = frozenset(get_args(Place))

_ORDERED: Final = (DataKind.PREFERENCE, DataKind.UNPAIRED)  # rows that say which answers are better


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """One metric of the judge. `name` is the field that holds it in `Metrics`, or in `RowScores`."""

    name: str
    label: str
    description: str  # one sentence, for tooltips and the model card
    lower_is_better: bool
    unit: str = ""  # "" for a plain number; the label itself where the label is a unit
    head: str = ""  # a shorter label for tables of the command line; "" for the label
    named_by: str | None = None  # the field of `Metrics` that names this job's variant of the metric
    variants: Mapping[str, str] = field(default_factory=dict)  # their descriptions, by name
    mean: Literal["arithmetic", "geometric"] = "arithmetic"  # how the values of several seeds are averaged
    objective: Objective | None = None  # the objective that trials are ranked by with this metric
    applies: Callable[[JudgeSpec], bool] = lambda judge: True  # whether a judge measures it
    shown: frozenset[Place] = EVERYWHERE

    def value(self, found: Metrics | RowScores | None) -> float | None:
        """Return the metric's value, or None if it was not measured."""
        value: float | None = getattr(found, self.name, None)
        return value

    def label_of(self, *found: Metrics | None) -> str:
        """Return the label of the job's variant (`preference accuracy` for `reward`), else the general label."""
        names = (getattr(one, self.named_by, None) for one in found if self.named_by is not None)
        return next((name.replace("_", " ") for name in names if name), self.label)

    def describe(self, found: Metrics) -> str:
        """Return the description of the job's variant of the metric."""
        name = getattr(found, self.named_by, None) if self.named_by is not None else None
        return self.variants.get(name or "", self.description)

    def phrase(self, found: Metrics) -> str:
        """Return value, label and unit for a sentence: `0.91 bits per byte`, `perplexity 12.5`."""
        value = self.value(found)
        assert value is not None, f"{self.name} was not measured"
        if self.unit == self.label:
            return f"{figure(value)} {self.unit}"
        return f"{self.label_of(found)} {figure(value)} {self.unit}".rstrip()

    @property
    def heading(self) -> str:
        """The column heading in the tables of the command line."""
        return self.head or self.label

    @property
    def sign(self) -> int:
        """1 or -1: the factor that turns the value into a number to minimise."""
        return 1 if self.lower_is_better else -1


METRICS: Final[tuple[MetricSpec, ...]] = (
    MetricSpec(
        name="perplexity",
        label="perplexity",
        description="The exponential of the mean negative log-likelihood of the target tokens.",
        lower_is_better=True,
        mean="geometric",
        applies=lambda judge: judge.family == "decoder",
        shown=EVERYWHERE - {"leaderboard", "models"},
    ),
    MetricSpec(
        name="pseudo_perplexity",
        label="pseudo-perplexity",
        description="The exponential of the mean negative pseudo-log-likelihood (Salazar et al. 2020): each token is "
        "masked alone and predicted from all others of its window. It cannot be compared with a decoder's perplexity.",
        lower_is_better=True,
        mean="geometric",
        applies=lambda judge: judge.family == "encoder",
        shown=EVERYWHERE - {"leaderboard", "models", "export"},
    ),
    MetricSpec(
        name="bits_per_byte",
        label="bits per byte",
        head="bits/byte",
        unit="bits per byte",
        description="The negative log-likelihood of the targets in bits, divided by the bytes of their text. It is "
        "comparable across tokenizers.",
        lower_is_better=True,
        objective="perplexity",
        shown=EVERYWHERE - {"headline"},
    ),
    MetricSpec(
        name="reward",
        label="reward",
        description="The mean reward of greedy answers, from the grader or the environment.",
        variants={
            "preference_accuracy": "The share of held-out pairs whose chosen answer has the higher mean log-likelihood "
            "per token.",
            "label_auc": "The probability that a desirable answer has a higher mean log-likelihood per token than an "
            "undesirable one, whatever their prompts.",
        },
        lower_is_better=False,
        named_by="reward_name",
        objective="reward",
        applies=lambda judge: (
            judge.kind in _ORDERED
            or (judge.kind is not DataKind.TEXT and (judge.grader is not None or judge.environment is not None))
        ),
    ),
    MetricSpec(
        name="margin",
        label="margin",
        unit="nats per token",
        description="The mean log-likelihood per token of the better answers minus that of the worse ones.",
        lower_is_better=False,
        applies=lambda judge: judge.kind in _ORDERED,
        shown=frozenset({"log", "trial", "trackers"}),
    ),
    MetricSpec(
        name="general_bits_per_byte",
        label="bits per byte of general text",
        unit="bits per byte",
        description="Bits per byte of a general English text. Above the base's, it means catastrophic forgetting.",
        lower_is_better=True,
        shown=frozenset(),  # the report compares it with the base's
    ),
)


@dataclass(frozen=True, kw_only=True)
class CurveSpec:
    """One curve of a trial. `name` is the name of its points."""

    name: str
    label: str
    description: str
    lower_is_better: bool | None  # None where neither direction is better
    unit: str = ""
    alias: str = ""  # its name in transformers and TRL, where users may search for it
    split: Literal["training", "validation"] = "training"  # where it is measured
    chart: Literal["loss", "other"] = "other"  # the chart on the trial's page; all `loss` curves share one
    read: Callable[[Metrics, DataKind], float | None] | None = None  # from the judge's metrics, at rungs and stage ends


CURVES: Final[tuple[CurveSpec, ...]] = (
    CurveSpec(
        name=TRAIN_LOSS,
        label="training loss",
        unit="nats",
        description="The loss of the algorithm, averaged over the batch.",
        lower_is_better=True,
        chart="loss",
    ),
    CurveSpec(
        name="valid_loss",
        label="validation loss",
        unit="nats per token",
        alias="eval_loss",
        description="The mean negative log-likelihood of held-out target tokens.",
        lower_is_better=True,
        split="validation",
        chart="loss",
        read=lambda metrics, kind: math.log(metrics.likelihood[1]),
    ),
    CurveSpec(
        name="valid_accuracy",
        label="preference accuracy",
        description="The share of held-out pairs whose chosen answer has the higher mean log-likelihood per token.",
        lower_is_better=False,
        split="validation",
        read=lambda metrics, kind: metrics.reward if kind is DataKind.PREFERENCE else None,
    ),
    CurveSpec(
        name="valid_reward",
        label="validation reward",
        description="The mean reward of greedy answers to held-out prompts. For unpaired preference data, the AUC of "
        "the labels.",
        lower_is_better=False,
        split="validation",
        read=lambda metrics, kind: None if kind is DataKind.PREFERENCE else metrics.reward,
    ),
    CurveSpec(
        name="valid_reward_accuracy",
        label="reward accuracy",
        description="The share of held-out pairs whose chosen answer the reward model scores higher.",
        lower_is_better=False,
        split="validation",
    ),
    CurveSpec(
        name="learning_rate",
        label="learning rate",
        description="The learning rate of the step, after warm-up and decay.",
        lower_is_better=None,
    ),
    CurveSpec(
        name="grad_norm",
        label="gradient norm",
        description="The norm of the gradient before clipping.",
        lower_is_better=None,
    ),
    CurveSpec(
        name="reward_margin",
        label="reward margin",
        unit="nats",
        description="The implicit reward of chosen answers minus that of rejected ones (DPO, IPO, SimPO), or the "
        "reward model's.",
        lower_is_better=False,
    ),
    CurveSpec(
        name="reward_accuracy",
        label="reward accuracy in training",
        description="The share of pairs in the batch whose chosen answer has the higher implicit reward, or score of "
        "the reward model.",
        lower_is_better=False,
    ),
    CurveSpec(
        name="log_odds_ratio",
        label="log odds ratio",
        unit="nats",
        description="The log odds of chosen answers minus those of rejected ones (ORPO).",
        lower_is_better=False,
    ),
    CurveSpec(
        name="kl",
        label="KL",
        unit="nats",
        description="The estimated KL divergence from the reference policy.",
        lower_is_better=None,
    ),
    CurveSpec(
        name="reward",
        label="reward",
        description="The mean reward of the step's sampled answers.",
        lower_is_better=False,
    ),
    CurveSpec(
        name="reward_std",
        label="reward std",
        description="The standard deviation of rewards among the answers to one prompt.",
        lower_is_better=None,
    ),
    CurveSpec(
        name="completion_length",
        label="completion length",
        unit="tokens",
        description="The mean length of the step's sampled answers.",
        lower_is_better=None,
    ),
    CurveSpec(
        name="on_policy",
        label="on-policy steps",
        unit="share",
        description="1 for a step on the model's own answers, 0 for a step on the dataset's (GKD).",
        lower_is_better=None,
    ),
    CurveSpec(
        name="rollouts_kept",
        label="rollouts kept",
        description="The number of sampled answers that the step trained on.",
        lower_is_better=None,
    ),
)


def listed(place: Place) -> list[MetricSpec]:
    """Return the metrics that a place shows, measured or not."""
    return [spec for spec in METRICS if place in spec.shown]


def shown(place: Place, *found: Metrics | None) -> list[MetricSpec]:
    """Return the metrics that a place shows and that at least one of `found` has a value of."""
    return [spec for spec in listed(place) if any(spec.value(one) is not None for one in found)]


def values_at(place: Place, found: Metrics) -> dict[str, float]:
    """Return the values of `found` that a place shows, by metric name."""
    return {spec.name: value for spec in listed(place) if (value := spec.value(found)) is not None}


def named(name: str) -> MetricSpec:
    """Return the metric of that name."""
    return next(spec for spec in METRICS if spec.name == name)


def deciding(objective: Objective) -> MetricSpec:
    """Return the metric that ranks trials under an objective."""
    return next(spec for spec in METRICS if spec.objective == objective)


def objective_value(found: Metrics, objective: Objective) -> float:
    """Return the number to minimise: bits per byte for `perplexity`, minus the reward for `reward`.

    Raises MissingMetric if the judge did not report the metric.
    """
    metric = deciding(objective)
    value = metric.value(found)
    if value is None:
        raise MissingMetric(
            f"the objective is {objective}, but the judge reported no {metric.label}", param=f"metrics.{metric.name}"
        )
    return metric.sign * value


def progress(found: Metrics, objective: Objective) -> float:
    """Return the number to minimise that shows how far a training has come towards its objective.

    Preference accuracy counts the pairs with a positive reward margin, so it changes late and in steps of one pair. The
    mean margin changes from the first steps, so it stands for the accuracy.
    """
    if objective == "reward" and found.margin is not None:
        return -found.margin
    return objective_value(found, objective)


def rank_key(found: Metrics, objective: Objective) -> tuple[float, float]:
    """Return the key by which trainings under way are compared; lower is better. Raises MissingMetric.

    It is their progress. Where that is the objective itself, ties, which are common for rewards on few rows, are broken
    by bits per byte; otherwise by the objective.
    """
    value, shown = objective_value(found, objective), progress(found, objective)
    return shown, found.bits_per_byte if shown == value else value


def phrases(place: Place, found: Metrics, objective: Objective | None = None) -> str:
    """Return the metrics that a place shows as part of a sentence: `0.91 bits per byte, perplexity 12.5`.

    The metric of the objective comes first, also where the place does not show it; then others that can rank trials.
    """
    first = None if objective is None else deciding(objective)
    specs = shown(place, found)
    if first is not None and first not in specs and first.value(found) is not None:
        specs.append(first)
    specs.sort(key=lambda spec: (spec is not first, spec.objective is None))
    return ", ".join(spec.phrase(found) for spec in specs)


def mean_metrics(seeds: Sequence[Metrics]) -> Metrics:
    """Return the mean of each metric over one or more seeds of a design; rows and tokens are those of the first seed.

    The mean of perplexities is the geometric one, i.e. the mean of their logarithms.
    """
    first = seeds[0]
    if len(seeds) == 1:
        return first
    changes: dict[str, float] = {}
    for spec in METRICS:
        values = [value for one in seeds if (value := spec.value(one)) is not None]
        if values:
            changes[spec.name] = geometric_mean(values) if spec.mean == "geometric" else fmean(values)
    return first.model_copy(update=changes)


def seeds_count(seeds: int) -> str:
    """Format how many seeds of a design a score is the mean of: `n=3`."""
    return f"n={seeds}"


def held_out(metrics: Metrics, kind: DataKind) -> dict[str, float]:
    """Return the points of the validation curves that follow from the judge's metrics, by curve name."""
    found = {curve.name: curve.read(metrics, kind) for curve in CURVES if curve.read is not None}
    return {name: value for name, value in found.items() if value is not None}


def curve_phrases(found: Mapping[str, float | None]) -> str:
    """Return points of curves as part of a sentence: `validation loss 1.25, preference accuracy 0.75`."""
    values = ((curve, found.get(curve.name)) for curve in CURVES)
    return ", ".join(f"{curve.label} {figure(value)}" for curve, value in values if value is not None)


def curves_for_charts() -> list[dict[str, Any]]:
    """Return what the dashboard's scripts need to know about curves, as JSON."""
    return [
        {
            "name": curve.name,
            "label": curve.label,
            "unit": curve.unit,
            "alias": curve.alias,
            "description": curve.description,
            "lower_is_better": curve.lower_is_better,
            "split": curve.split,
            "chart": curve.chart,
        }
        for curve in CURVES
    ]


def figure(value: float) -> str:
    """Format a score for a sentence: four significant digits."""
    return f"{value + 0.0:.4g}"  # a negative zero has no sign


def signed(difference: float) -> str:
    """Format a difference of scores with its sign."""
    return f"{difference + 0.0:+.4g}"


def cell(value: float | None) -> str:
    """Format a score for a table: always four digits, so that columns line up; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 9999.5 else f"{value + 0.0:#.4g}"
