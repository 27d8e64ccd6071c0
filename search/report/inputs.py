"""A job's rows as the report is made of them, and what can be read off them directly."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from pydantic import Field

from luthier.design import Frozen
from luthier.metrics import MetricSpec, deciding
from luthier.models.base_model import ModelFacts
from luthier.task import JudgeSpec, Search, Task
from luthier.trial import RUNGS, JobState, Metrics, RowScores, TrialState
from search.policy import asha, ranking
from search.policy.history import Past
from search.policy.ranking import DEFAULT, UNTUNED
from search.space.space import Space


class Tried(Frozen):
    """One trial, with what the report says of it beyond what the search knows."""

    past: Past
    id: str
    seed: int
    origin: str
    metrics: Metrics | None = None
    test_metrics: Metrics | None = None
    scores: RowScores | None = Field(default=None, description="of the test rows")
    error: str | None = None

    @property
    def number(self) -> int:
        return self.past.number

    @property
    def complete(self) -> bool:
        return self.past.state is TrialState.COMPLETE

    @property
    def stopped(self) -> bool:
        """Whether it was left at a rung, paused or given up."""
        past, left = self.past, (TrialState.WAITING, TrialState.PRUNED, TrialState.CANCELLED)
        at_goal = past.goal is not None and len(past.measured) > past.goal
        return past.state is TrialState.PRUNED or (past.state in left and at_goal)

    @property
    def launched(self) -> bool:
        """Whether it counts as a design: what was refused before it was launched does not."""
        return self.past.state is not TrialState.INFEASIBLE or self.past.device_seconds > 0

    @property
    def share(self) -> float:
        """Of its training that was done when it was last scored."""
        if self.complete:
            return 1.0
        return RUNGS[min(len(self.past.measured), len(RUNGS)) - 1] if self.past.measured else 0.0


class Case(Frozen):
    """Everything that a report is made of."""

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
    rows: tuple[int, int, int] = Field(description="to train, to validate, to test")
    tried: tuple[Tried, ...] = ()
    facts: Mapping[str, ModelFacts] = {}
    space: Space | None = Field(default=None, description="None where it cannot be made any more")
    ended: str | None = Field(default=None, description="why no further trial was started")
    curve: tuple[float, ...] = Field(default=(), description="the winner's training loss, step by step, last stage")

    @cached_property
    def history(self) -> list[Past]:
        return [tried.past for tried in self.tried]

    @cached_property
    def by_number(self) -> dict[int, Tried]:
        return {tried.number: tried for tried in self.tried}

    @cached_property
    def ranked(self) -> list[Tried]:
        """The complete designs that were trained, best first."""
        return [self.by_number[past.number] for past in ranking.rank(self.history)]

    @cached_property
    def designs(self) -> list[Tried]:
        """Those that were tried as designs, the baselines included."""
        return [tried for tried in self.tried if tried.past.confirms is None and tried.launched]

    @property
    def winner(self) -> Tried | None:
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
        """The best that is neither the winner nor the default, which has a comparison of its own."""
        return next((tried for tried in self.ranked[1:] if tried.number != DEFAULT), None)

    def seeds(self, number: int) -> list[Tried]:
        """The complete trials of a design, the first one first."""
        return self._seeds.get(number, [])

    def scores(self, number: int) -> list[RowScores]:
        """Of a design's test rows, from each seed that was scored on them."""
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
        """What scores are in."""
        return self.metric.label_of(*(tried.metrics for tried in self.tried))

    def shown(self, value: float) -> float:
        """An objective, which is minimised, as people know it."""
        return self.metric.sign * value

    def value(self, tried: Tried) -> float:
        """A complete design's score on the validation rows, as the mean over its seeds."""
        return self.shown(self._means[tried.number])

    def test_value(self, tried: Tried) -> float | None:
        """A trial's own score on the test rows."""
        return self.metric.value(tried.test_metrics)

    def place(self, tried: Tried) -> tuple[int, int, int]:
        """A trial's place at the last rung that it reached, of how many, and how many of these go on."""
        places = self._places[len(tried.past.measured) - 1]
        return places[tried.number], len(places), len(places) // asha.ETA

    @cached_property
    def _means(self) -> dict[int, float]:
        return ranking.means(self.history)

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
    def _places(self) -> list[dict[int, int]]:
        """At each rung the place of each trial that was scored there."""
        ranked = (asha.rung_score(self.history, rung) for rung in range(len(RUNGS)))
        return [{past.number: place for place, past in enumerate(those, start=1)} for those in ranked]
