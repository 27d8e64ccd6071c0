"""The smallest environment: a row has a prompt, the first answer ends the episode, and a grader gives the reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.dataset.messages import as_messages
from luthier.environments.base import Episode, Message, Row
from luthier.graders import grade_many, sample_of
from luthier.task import DataKind, Grader


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The prompt, the tools, and the reference answer if the row has one."""

    prompt: str | Sequence[Message]
    tools: Sequence[Any] | None
    answer: Message | None

    @property
    def reference(self) -> str | None:
        """The text of the answer, without its tool calls."""
        return None if self.answer is None else str(self.answer.get("content") or "")


def question(row: Row, kind: DataKind) -> Question:
    """Return the prompt of a row, and its reference answer if it has one.

    In a chat the prompt is everything before the last assistant turn, or the column `prompt` if the chat starts with it
    (as in rows of environments).
    """
    match kind:
        case DataKind.CHAT if _begins(row):
            return Question(prompt=row["prompt"], tools=row.get("tools"), answer=row["messages"][-1])
        case DataKind.CHAT:
            last = max(i for i, message in enumerate(row["messages"]) if message["role"] == "assistant")
            return Question(prompt=row["messages"][:last], tools=row.get("tools"), answer=row["messages"][last])
        case DataKind.PAIRS:
            *before, answer = as_messages(row["completion"], "assistant")
            prompt = [*as_messages(row["prompt"], "user"), *before] if before else row["prompt"]
            return Question(prompt=prompt, tools=row.get("tools"), answer=answer)
        case DataKind.PROMPTS:
            return Question(prompt=row["prompt"], tools=row.get("tools"), answer=None)
        case DataKind.PREFERENCE | DataKind.UNPAIRED:
            return Question(prompt=row["prompt"], tools=row.get("tools"), answer=None)
        case DataKind.TEXT:
            raise ValueError(f"{kind} rows have no prompt")


def _begins(row: Row) -> bool:
    prompt = row.get("prompt")
    return isinstance(prompt, list) and prompt != [] and row["messages"][: len(prompt)] == prompt


class Graded:
    """Episodes of one answer each. `spoken` renders a reference answer as a model would generate it."""

    def __init__(self, grader: Grader, kind: DataKind, spoken: Callable[[Question], str | None]) -> None:
        self._grader = grader
        self._kind = kind
        self._spoken = spoken

    def begin(self, row: Row) -> Episode:
        reference = self._spoken(question(row, self._kind))
        return _OneAnswer(self._grader, row if reference is None else {"reference": reference, **row})

    def rewards(self, episodes: Sequence[Episode]) -> list[float]:
        """Return the rewards of many episodes; requests to a grading model run concurrently."""
        return grade_many(self._grader, [episode.graded for episode in episodes if isinstance(episode, _OneAnswer)])


class _OneAnswer:
    def __init__(self, grader: Grader, item: Row) -> None:
        self._grader = grader
        self._item = item
        self._answer = ""

    @property
    def graded(self) -> tuple[Row, dict[str, Any]]:
        return self._item, sample_of(self._answer)

    def respond(self, answer: str) -> Sequence[Message]:
        self._answer = answer
        return ()

    def reward(self) -> float:
        [reward] = grade_many(self._grader, [self.graded])
        return reward
