"""What a base model's tokenizer and chat template make of each row of a dataset, found before a job is queued."""

from __future__ import annotations

from pydantic import Field

from luthier.task import DataKind
from luthier.values import Frozen


class CheckOrder(Frozen):
    """The rows to render for one base model."""

    source: str = Field(description="folder of the base model")
    rows: str = Field(description="file of JSON Lines in TRL's columns")
    kind: DataKind
    tools: bool = Field(description="whether any row has tools, so that the chat template must show them")
    seconds: float = Field(description="CPU time to render and tokenise all rows; a process that takes more is ended")


class RowChecks(Frozen):
    """What the rows of a file become for one base model. Rows are numbered from 1."""

    faults: dict[int, str] = Field(description="rows that the chat template cannot show, and why")
    lengths: list[tuple[int, int]] = Field(
        description="for each row the tokens of its longest text, and the tokens up to its first target"
    )
    spelt: dict[int, str] = Field(description="the first rows that spell a control token, and which")
    templated: bool = Field(default=True, description="whether there is a chat template; it reads such tokens as text")
    unreasoned: int = Field(default=0, description="rows whose reasoning the chat template leaves out")
    several: dict[int, list[tuple[int, int]]] = Field(
        default_factory=dict, description="chats that become several texts: the same two numbers for each text"
    )
    timed: bool = Field(default=False, description="whether the chat template shows the time")
    stops: bool = Field(description="whether an answer has an end that the model can learn")

    def texts(self, max_tokens: int) -> list[int]:
        """Return the lengths in tokens of the texts that the chats of `several` become, without those that lose all
        their targets."""
        each = (text for texts in self.several.values() for text in texts)
        return [min(length, max_tokens) for length, needed in each if needed <= max_tokens]

    def truncated(self, max_tokens: int) -> list[int]:
        """Return the numbers of the rows that are longer than the limit."""
        return [number for number, (length, _) in enumerate(self.lengths, start=1) if length > max_tokens]

    def without_target(self, max_tokens: int) -> list[int]:
        """Return the numbers of the rows whose targets all lie beyond the limit."""
        return [
            number
            for number, (_, needed) in enumerate(self.lengths, start=1)
            if needed > max_tokens and number not in self.faults
        ]
