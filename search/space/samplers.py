"""Ways to choose a value on each axis of a define-by-run space: an Optuna trial, given values, or an enumeration."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from luthier.errors import IllegalDesign

Value = str | int | float
V = TypeVar("V", str, int, float)

STEPS: Final = 64  # values of a continuous axis in an enumeration


class Suggest(Protocol):
    """Chooses one value at a time. A name always comes with the same choices or bounds, as Optuna requires."""

    def categorical(self, name: str, choices: Sequence[V]) -> V:
        """Return one of `choices`."""
        ...

    def log_uniform(self, name: str, low: float, high: float) -> float:
        """Return a number in [low, high], on a logarithmic scale; both bounds are positive."""
        ...


class Sampled:
    """Values suggested by an Optuna trial."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def categorical(self, name: str, choices: Sequence[V]) -> V:
        return self._trial.suggest_categorical(name, choices)

    def log_uniform(self, name: str, low: float, high: float) -> float:
        return self._trial.suggest_float(name, low, high, log=True)


class Replay:
    """Given values, recorded with their distributions. Raises IllegalDesign for one outside the choices or bounds."""

    def __init__(self, answers: Mapping[str, Value]) -> None:
        self._answers = answers
        self.values: dict[str, Value] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def categorical(self, name: str, choices: Sequence[V]) -> V:
        answer = self._answers.get(name)
        for choice in choices:
            if choice == answer:
                self.values[name] = choice
                self.distributions[name] = CategoricalDistribution(choices)
                return choice
        raise IllegalDesign(f"{name} is {answer!r}, but this search allows {_listed(choices)}", param=name)

    def log_uniform(self, name: str, low: float, high: float) -> float:
        answer = self._answers.get(name)
        if not isinstance(answer, (int, float)) or not low <= answer <= high:
            raise IllegalDesign(f"{name} is {answer!r}, but this search allows {low:g} to {high:g}", param=name)
        self.values[name] = answer
        self.distributions[name] = FloatDistribution(low, high, log=True)
        return answer


class Varied:
    """Mutates given values: one of them, chosen at random, is drawn anew and the others are kept.

    Axes that the mutation adds, and values that it makes illegal, are drawn at random too.
    """

    def __init__(self, draw: random.Random, answers: Mapping[str, Value]) -> None:
        self._draw = draw
        changed = draw.choice(sorted(answers)) if answers else None
        self._kept = {name: value for name, value in answers.items() if name != changed}

    def categorical(self, name: str, choices: Sequence[V]) -> V:
        kept = [choice for choice in choices if choice == self._kept.get(name)]
        return kept[0] if kept else self._draw.choice(choices)

    def log_uniform(self, name: str, low: float, high: float) -> float:
        kept = self._kept.get(name)
        if isinstance(kept, (int, float)) and low <= kept <= high:
            return kept
        return math.exp(self._draw.uniform(math.log(low), math.log(high)))


class Enumeration:
    """Visits every combination of values once, depth first, in random order. Call `advance` after each combination.

    A continuous axis has STEPS values, so that the enumeration is finite.
    """

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._open: list[list[int]] = []  # for each axis so far: the index of the value in use, then those left
        self._depth = 0

    def categorical(self, name: str, choices: Sequence[V]) -> V:
        return choices[self._index(len(choices))]

    def log_uniform(self, name: str, low: float, high: float) -> float:
        return low * math.pow(high / low, (self._index(STEPS) + 0.5) / STEPS)

    def advance(self) -> bool:
        """Move to the next combination and restart from the first axis. Return False when none is left."""
        self._depth = 0
        while self._open and len(self._open[-1]) == 1:
            self._open.pop()
        if self._open:
            self._open[-1].pop(0)
        return bool(self._open)

    def _index(self, count: int) -> int:
        if self._depth == len(self._open):
            self._open.append(self._draw.sample(range(count), count))
        self._depth += 1
        return self._open[self._depth - 1][0]


def _listed(choices: Sequence[Value]) -> str:
    return ", ".join(map(str, choices))
