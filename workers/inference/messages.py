"""Messages between a worker and its generation process: one JSON object per line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter

from luthier.values import Frozen
from luthier.worker_protocol import Answered, Question


class Ask(Frozen):
    """Answer a question."""

    kind: Literal["ask"] = "ask"
    id: str
    question: Question
    folder: Path | None = Field(default=None, description="folder of an exported model; None for a base model")


class Cancel(Frozen):
    """Stop an answer at its next token."""

    kind: Literal["cancel"] = "cancel"
    id: str


class Piece(Frozen):
    """A piece of an answer. The last one has `answer`: how it ended."""

    id: str
    text: str = ""
    answer: Answered | None = None


COMMANDS: TypeAdapter[Ask | Cancel] = TypeAdapter(Ask | Cancel)
