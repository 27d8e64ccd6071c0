"""A wrapper around every environment: it limits the length of episodes and names the environment in errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from luthier.environments.base import Environment, Episode, Message, Row
from luthier.errors import TrialFailed
from luthier.task import EnvironmentSpec

T = TypeVar("T")


class Guarded:
    """An environment whose episodes end after `max_turns` answers. Its errors become TrialFailed."""

    def __init__(self, environment: Environment, spec: EnvironmentSpec) -> None:
        self._environment = environment
        self._spec = spec

    def rows(self, count: int, seed: int) -> list[Row]:
        return _named(self._spec.name, "rows", lambda: list(self._environment.rows(count, seed)))

    def begin(self, row: Row) -> Episode:
        episode = _named(self._spec.name, "begin", lambda: self._environment.begin(row))
        return _GuardedEpisode(episode, self._spec)


class _GuardedEpisode:
    def __init__(self, episode: Episode, spec: EnvironmentSpec) -> None:
        self._episode = episode
        self._name = spec.name
        self._left = spec.max_turns

    def respond(self, answer: str) -> Sequence[Message]:
        if self._left == 0:
            return ()
        self._left -= 1
        said = _named(self._name, "respond", lambda: self._episode.respond(answer))
        self._left = self._left if said else 0
        return said if self._left else ()

    def reward(self) -> float:
        reward = _named(self._name, "reward", lambda: float(self._episode.reward()))
        if not math.isfinite(reward):
            raise TrialFailed(f"The environment {self._name} returned a reward that is not a finite number: {reward}")
        return reward


def _named(name: str, method: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except Exception as error:  # third-party code may raise anything
        kind = type(error).__name__
        raise TrialFailed(f"The environment {name} failed in its method `{method}`: {kind}: {error}") from error
