"""What an environment is: a maker of rows, and a world in which a model answers until the episode is over.

A question with a grader is the smallest one: an episode of a single answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Row = Mapping[str, Any]
Message = Mapping[str, Any]


class Episode(Protocol):
    """One run of one row. Knows nothing of models: it is told texts and answers with messages."""

    def respond(self, answer: str) -> Sequence[Message]:
        """What the world says to the model's answer, such as the results of the tools that it called; nothing when the
        episode is over. Whatever the model writes is a legal answer: a bad one costs reward, it never raises."""
        ...

    def reward(self) -> float:
        """How good the episode was, from its last state; 1.0 is a task done."""
        ...


class Environment(Protocol):
    """Makes rows of TRL's column names, each with a `prompt` (text or messages), with `tools` where the model may call
    some, with a `completion` where a right answer is known, and with whatever columns `begin` needs."""

    def rows(self, count: int, seed: int) -> list[Row]:
        """Different rows for different seeds; the same ones for the same."""
        ...

    def begin(self, row: Row) -> Episode:
        """A fresh episode of a row that `rows` made. Its first message has been said: it is the row's prompt."""
        ...
