"""The protocols of an RL environment: it makes rows, and plays an episode with the model for each row.

A prompt with a grader is the smallest environment: its episodes have one answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Row = Mapping[str, Any]
Message = Mapping[str, Any]


class Episode(Protocol):
    """One episode of one row. It receives texts and returns messages, and does not depend on the model."""

    def respond(self, answer: str) -> Sequence[Message]:
        """Return the replies to the model's answer, e.g. tool results; empty when the episode is over.

        Any text is a legal answer: a bad one lowers the reward and never raises.
        """
        ...

    def reward(self) -> float:
        """Return the reward of the episode, from its last state; 1.0 means that the task is solved."""
        ...


class Environment(Protocol):
    """Makes rows with TRL's column names, and starts episodes.

    Each row has a `prompt` (text or messages), `tools` if the model may call some, a `completion` if a correct answer
    is known, and any other columns that `begin` needs.
    """

    def rows(self, count: int, seed: int) -> list[Row]:
        """Return `count` rows. The same seed gives the same rows, another seed gives other rows."""
        ...

    def begin(self, row: Row) -> Episode:
        """Return a new episode of a row that `rows` made. The model has already received the row's prompt."""
        ...
