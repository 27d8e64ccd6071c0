"""What a worker's agent and its generation process say to each other: one JSON object a line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter

from luthier.design import Frozen
from luthier.worker_protocol import Answered, Question


class Ask(Frozen):
    kind: Literal["ask"] = "ask"
    id: str
    question: Question
    folder: Path | None = Field(default=None, description="where the weights lie that are no base model's")


class Cancel(Frozen):
    """Nobody wants the rest of the answer; it ends at the next word."""

    kind: Literal["cancel"] = "cancel"
    id: str


class Told(Frozen):
    """A piece of an answer; the last one says how it ended."""

    id: str
    text: str = ""
    answer: Answered | None = None


ORDERS: TypeAdapter[Ask | Cancel] = TypeAdapter(Ask | Cancel)
