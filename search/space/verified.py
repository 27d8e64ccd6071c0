"""What was seen of each cell of the design space when it was last tried on a tiny model.

`python -m tests.cells` trains every legal cell and records what it sees in evidence.json; the tests hold the record
against the table of legality, so that nothing is offered that was not seen to work.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from pydantic import Field, TypeAdapter

from luthier.values import Frozen

RECORD: Final = Path(__file__).with_name("evidence.json")


class Evidence(Frozen):
    """One cell: an algorithm, with the one after it that it cannot do without, under one weight update; or an edit of
    the architecture."""

    program: str = Field(description="the recipe; `luthier cells --json` has had this name since the first release")
    update: str
    edit: str = Field(default="", description="of the architecture, where one was tried")
    base: str = Field(description="the tiny model that was trained")
    data: str = Field(description="the kind of data")
    metric: str = Field(description="what the judge scored on held-out rows; of perplexities less is better")
    untuned: float
    trained: float
    moved: int = Field(
        ge=0,
        description="tensors that differ from their start after the first step or the last: pruning may bring one back",
    )
    still: int = Field(ge=0, description="tensors that are the same, bit for bit")
    as_declared: bool = Field(description="whether exactly the update's own parameters moved")
    reloaded: float = Field(description="the trained score of the saved model, loaded by plain libraries")
    resumed: bool = Field(description="whether a training that was broken off and resumed ended bit for bit the same")

    @property
    def better(self) -> bool:
        return self.trained < self.untuned if self.metric.endswith("perplexity") else self.trained > self.untuned

    @property
    def reloads(self) -> bool:
        """To the last digits: an adapter is added to the weights in another order than the merged model was."""
        return abs(self.reloaded - self.trained) <= 1e-4 * abs(self.trained)

    @property
    def passes(self) -> bool:
        return self.better and self.as_declared and self.moved > 0 and self.reloads and self.resumed


_RECORD: Final = TypeAdapter(tuple[Evidence, ...])


@cache
def recorded() -> tuple[Evidence, ...]:
    """The evidence that came with this version."""
    return _RECORD.validate_json(RECORD.read_bytes())


def write(found: tuple[Evidence, ...]) -> None:
    """Replace the record."""
    RECORD.write_bytes(_RECORD.dump_json(found, indent=1) + b"\n")
