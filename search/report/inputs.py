"""The input of a report: a job's stored rows, and values derived from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from pydantic import Field

from luthier.api_types import TrialSample
from luthier.metrics import MetricSpec, deciding, figure, mean_metrics, named
from luthier.models.base_model import ModelFacts
from luthier.task import JudgeSpec, Search, Task
from luthier.trial import RUNGS, JobState, Metrics, RowScores, StageLength, TrialState
from luthier.values import Frozen
from search.policy import asha, ranking
from search.policy.history import Past
from search.policy.ranking import DEFAULT, UNTUNED
from search.space.space import Space


class Tried(Frozen):
    """One trial: its history as the search sees it, and what only the report needs."""

    past: Past
    id: str
    seed: int
    origin: str
    metrics: Metrics | None = None
    test_metrics: Metrics | None = None
    scores: RowScores | None = Field(default=None, description="per-row scores on the test rows")
    error: str | None = None
    lengths: tuple[StageLength, ...] | None = Field(default=None, description="of each stage, once all are trained")

    @property
    def number(self) -> int:
        return self.past.number

    @property
    def complete(self) -> bool:
        return self.past.state is TrialState.COMPLETE

    @property
    def stopped(self) -> bool:
        """Whether it is paused or was stopped at a rung."""
        past, left = self.past, (TrialState.WAITING, TrialState.PRUNED, TrialState.CANCELLED)
        at_goal = past.goal is not None and len(past.measured) > past.goal
        return past.state is TrialState.PRUNED or (past.state in left and at_goal)

    @property
    def launched(self) -> bool:
        """Whether it was launched; infeasible designs that never were do not count as designs."""
        return self.past.state is not TrialState.INFEASIBLE or self.past.device_seconds > 0

    @property
    def share(self) -> float | None:
        """Share of its training that was done at its last score; None if the whole length is not known."""
        if self.complete:
            return 1.0
        if self.past.design.self_ending and self.past.measured:
            return None
        return RUNGS[min(len(self.past.measured), len(RUNGS)) - 1] if self.past.measured else 0.0


class Case(Frozen):
    """Everything that a report is built from."""

    job: str
    state: JobState
    error: str | None = None
    fine_tuned_model: str | None = None
    created_at: int = 0
    finished_at: int | None = None
    task: Task
    judge: JudgeSpec
    search: Search
    file: str | None = None
    rows: tuple[int, int, int] = Field(description="training, validation and test rows")
    tried: tuple[Tried, ...] = ()
    facts: Mapping[str, ModelFacts] = {}
    space: Space | None = Field(default=None, description="None if it can no longer be built")
    ended: str | None = Field(default=None, description="why the search ended, as a clause")
    curve: tuple[float, ...] = Field(default=(), description="training loss of the winner's last stage, by step")
    answers: Mapping[int, tuple[TrialSample, ...]] = Field(default={}, description="answers to show, by trial number")
    named: int | None = Field(
        default=None, description="number of the trial that the succeeded job names as its result; None before"
    )

    @cached_property
    def history(self) -> list[Past]:
        return [tried.past for tried in self.tried]

    @cached_property
    def by_number(self) -> dict[int, Tried]:
        return {tried.number: tried for tried in self.tried}

    @cached_property
    def ranked(self) -> list[Tried]:
        """The complete trained designs, best first."""
        return [self.by_number[past.number] for past in ranking.rank(self.history)]

    @cached_property
    def designs(self) -> list[Tried]:
        """The launched trials with the baselines, without repeats."""
        return [tried for tried in self.tried if tried.past.confirms is None and tried.launched]

    @property
    def winner(self) -> Tried | None:
        """The best trained design on the validation rows."""
        return self.ranked[0] if self.ranked else None

    @property
    def base(self) -> Tried | None:
        found = self.by_number.get(UNTUNED)
        return found if found is not None and found.complete else None

    @property
    def default(self) -> Tried | None:
        found = self.by_number.get(DEFAULT)
        return found if found is not None and found.complete else None

    @property
    def runner_up(self) -> Tried | None:
        """The best design that is neither the winner nor the default, which has a comparison of its own."""
        return next((tried for tried in self.ranked[1:] if tried.number != DEFAULT), None)

    def seeds(self, number: int) -> list[Tried]:
        """The complete trials of a design, one for each seed, in order."""
        return self._seeds.get(number, [])

    def scores(self, number: int) -> list[RowScores]:
        """A design's per-row test scores, for each seed that was scored."""
        return [tried.scores for tried in self.seeds(number) if tried.scores is not None]

    @property
    def metric(self) -> MetricSpec:
        """The metric that trials are ranked by."""
        return deciding(self.judge.objective)

    @property
    def lower_is_better(self) -> bool:
        return self.metric.lower_is_better

    @cached_property
    def unit(self) -> str:
        """The unit of scores."""
        return self.metric.label_of(*(tried.metrics for tried in self.tried))

    def shown(self, value: float) -> float:
        """Convert an objective value, which is minimised, to a score as shown to users."""
        return self.metric.sign * value + 0.0  # the negative of zero is zero

    def value(self, tried: Tried) -> float:
        """A complete design's score on the validation rows, averaged over its seeds."""
        return self.shown(self._means[tried.number])

    def comparable(self, tried: Tried) -> float:
        """A complete design's score, as an objective to minimise, on the rows that all designs are scored on.

        It is its mean, without what its splits of the rows are harder or easier than the first one.
        """
        return self._comparable[tried.number]

    def pair(self, one: Tried, other: Tried) -> tuple[float, float]:
        """The scores of two complete designs over the splits of the rows that both are scored on."""
        first, second = ranking.on_same_rows(self.history, one.number, other.number)
        return self.shown(first), self.shown(second)

    def own_on_first_split(self, tried: Tried) -> float | None:
        """A trial's own score, without what its split of the rows is harder or easier than the first one."""
        value = tried.past.value
        return None if value is None else self.shown(value - self._split_effects[tried.past.split])

    @property
    def splits(self) -> int:
        """On how many splits of the rows complete trials were trained and scored."""
        return len({tried.past.split for tried in self.tried if tried.complete}) or 1

    def test_value(self, tried: Tried) -> float | None:
        """A trial's own score on the test rows."""
        return self.metric.value(tried.test_metrics)

    def mean(self, number: int) -> Metrics | None:
        """A complete design's metrics on the validation rows, as means over its seeds."""
        return _mean([tried.metrics for tried in self.seeds(number)])

    def mean_on_test(self, number: int) -> Metrics | None:
        """A design's metrics on the test rows, as means over its seeds that were scored there."""
        return _mean([tried.test_metrics for tried in self.seeds(number)])

    def rung_score(self, tried: Tried) -> str:
        """A trial's score at its last rung with its unit, and what ranks it there where that is another number."""
        score = tried.past.measured[-1]
        found = f"{figure(self.shown(score.value))} {self.unit}"
        if score.rank_key[0] == score.value:
            return found
        margin = named("margin")
        return f"{found}, {margin.label} {figure(margin.sign * score.rank_key[0])} {margin.unit}"

    def rung_rank(self, tried: Tried) -> tuple[int, int, int]:
        """A trial's rank at its last rung, how many trials were scored there, and how many of these are promoted."""
        ranks = self._rung_ranks[len(tried.past.measured) - 1]
        return ranks[tried.number], len(ranks), len(ranks) // asha.ETA

    @cached_property
    def _means(self) -> dict[int, float]:
        return ranking.means(self.history)

    @cached_property
    def _comparable(self) -> dict[int, float]:
        return ranking.comparable_means(self.history)

    @cached_property
    def _split_effects(self) -> dict[int, float]:
        return ranking.split_effects(self.history)

    @cached_property
    def _seeds(self) -> dict[int, list[Tried]]:
        found: dict[int, list[Tried]] = {}
        for tried in self.tried:
            if tried.complete:
                found.setdefault(tried.number, []).append(tried)
                if tried.past.confirms is not None:
                    found.setdefault(tried.past.confirms, []).append(tried)
        return found

    @cached_property
    def _rung_ranks(self) -> list[dict[int, int]]:
        """For each rung, the rank of each trial that was scored there, by number."""
        ranked = (asha.rung_score(self.history, rung) for rung in range(asha.rungs(self.history)))
        return [{past.number: rank for rank, past in enumerate(trials, start=1)} for trials in ranked]


def _mean(found: Sequence[Metrics | None]) -> Metrics | None:
    measured = [one for one in found if one is not None]
    return mean_metrics(measured) if measured else None
