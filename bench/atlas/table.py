"""The recorded learning curves, by design."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

from bench.atlas.tasks import TASKS, Task
from luthier.design import Design
from luthier.trial import RUNGS
from search.policy.history import RungScore

FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A design's learning curve: scores and cumulative CPU seconds (training and scoring) at the rungs and the end."""

    design: Design
    scores: tuple[RungScore, ...]
    costs: tuple[float, ...]

    @property
    def value(self) -> float:
        """The objective at the end of training; lower is better."""
        return self.scores[-1].value

    @property
    def cost(self) -> float:
        return self.costs[-1]

    def cost_at(self, at: int) -> float:
        return self.costs[at]

    def score_at(self, at: int) -> RungScore:
        return self.scores[at]

    def ends_at(self, at: int) -> bool:
        return at == len(self.scores) - 1


@dataclass(frozen=True, kw_only=True)
class Table:
    """All designs of a task that completed training, and the untuned model."""

    task: Task
    untuned: Curve
    curves: dict[str, Curve]  # by digest
    diverged: int

    def curve(self, design: Design) -> Curve:
        return self.curves[design.digest()] if design.stages else self.untuned

    @cached_property
    def best(self) -> Curve:
        return min(self.curves.values(), key=lambda curve: curve.value)

    @cached_property
    def cost(self) -> float:
        """CPU seconds of all designs together."""
        return sum(curve.cost for curve in self.curves.values())

    def near(self, value: float, share: float) -> bool:
        """Whether an objective is within a relative distance `share` of the best one. Rewards are negated."""
        return value <= self.best.value + share * abs(self.best.value)


@cache
def tables() -> tuple[Table, ...]:
    """Return the tables of all recorded tasks."""
    return tuple(_read(task) for task in TASKS if (FOLDER / f"{task.name}.jsonl").exists())


def _read(task: Task) -> Table:
    designs, curves, diverged, untuned = task.space, {}, 0, None
    for text in (FOLDER / f"{task.name}.jsonl").read_text("utf-8").splitlines():
        line = json.loads(text)
        if not line["answers"]:
            design = Design.model_validate({"architecture": {"base": "tiny-chat"}})
            untuned = Curve(design=design, scores=(_rung_score(line["standing"][0]),), costs=(line["scored"][0],))
            continue
        if "error" in line or len(line["standing"]) != len(RUNGS) + 1:
            diverged += 1
            continue
        design = designs.decode(line["answers"])
        curves[design.digest()] = curve(design, line)
    assert untuned is not None, f"the untuned model of {task.name} is not recorded"
    return Table(task=task, untuned=untuned, curves=curves, diverged=diverged)


def curve(design: Design, line: dict[str, Any]) -> Curve:
    """Return a design's curve from its line of the file."""
    costs = tuple(trained + scored for trained, scored in zip(line["trained"], line["scored"], strict=True))
    return Curve(design=design, scores=tuple(map(_rung_score, line["standing"])), costs=costs)


def _rung_score(numbers: Sequence[float]) -> RungScore:
    value, first, second = numbers
    return RungScore(value, (first, second))
