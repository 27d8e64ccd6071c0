"""The smallest environment: a row asks a question, the first answer ends the episode, a grader says how good it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.environments.environment import Episode, Message, Row
from luthier.graders import grade, sample_of
from luthier.task import DataKind, Grader


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the model is asked, the tools it may see, and the reference answer where the row has one."""

    prompt: str | Sequence[Message]
    tools: Sequence[Any] | None
    reference: str | None


def question(row: Row, kind: DataKind) -> Question:
    """The question that a row asks; of a chat it is everything before the last assistant turn."""
    match kind:
        case DataKind.CHAT:
            last = max(i for i, message in enumerate(row["messages"]) if message["role"] == "assistant")
            reference = row["messages"][last].get("content") or ""
            return Question(prompt=row["messages"][:last], tools=row.get("tools"), reference=reference)
        case DataKind.PAIRS:
            completion = row["completion"]
            reference = completion if isinstance(completion, str) else completion[-1].get("content") or ""
            return Question(prompt=row["prompt"], tools=None, reference=reference)
        case DataKind.PROMPTS:
            return Question(prompt=row["prompt"], tools=row.get("tools"), reference=None)
        case DataKind.PREFERENCE | DataKind.UNPAIRED:
            return Question(prompt=row["prompt"], tools=None, reference=None)
        case DataKind.TEXT:
            raise ValueError(f"{kind} rows ask no question")


def graded(grader: Grader, kind: DataKind) -> Callable[[Row], Episode]:
    """How an episode of a row of this kind begins."""

    def begin(row: Row) -> Episode:
        reference = question(row, kind).reference
        return _OneAnswer(grader, row if reference is None else {"reference": reference, **row})

    return begin


class _OneAnswer:
    def __init__(self, grader: Grader, item: Row) -> None:
        self._grader = grader
        self._item = item
        self._answer = ""

    def respond(self, answer: str) -> Sequence[Message]:
        self._answer = answer
        return ()

    def reward(self) -> float:
        return grade(self._grader, item=self._item, sample=sample_of(self._answer))
