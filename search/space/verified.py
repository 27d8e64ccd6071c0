"""The record of how each cell of the design space trained on a tiny model.

`python -m tests.cells` trains every legal cell and writes the results to evidence.json. The tests compare the record
with the legality rules, so that only cells that were shown to work are searched.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from pydantic import Field, TypeAdapter

from luthier.values import Frozen

RECORD: Final = Path(__file__).with_name("evidence.json")


class Evidence(Frozen):
    """The result for one cell: an algorithm (and one that must follow it, if any) with a weight update, or an edit."""

    program: str = Field(description="the recipe; `luthier cells --json` has had this name since the first release")
    update: str
    edit: str = Field(default="", description="edit of the architecture; empty if none")
    base: str = Field(description="the tiny model that was trained")
    data: str = Field(description="the kind of data")
    metric: str = Field(description="the judge's score on held-out rows; perplexities: lower is better")
    untuned: float
    trained: float
    moved: int = Field(
        ge=0,
        description="tensors changed after the first or the last step; pruning may restore one in between",
    )
    still: int = Field(ge=0, description="tensors that did not change, bit for bit")
    as_declared: bool = Field(description="whether exactly the update's own parameters changed")
    reloaded: float = Field(description="score of the saved model when loaded without Luthier")
    resumed: bool = Field(description="whether a run that was stopped and resumed ended bit for bit the same")

    @property
    def better(self) -> bool:
        return self.trained < self.untuned if self.metric.endswith("perplexity") else self.trained > self.untuned

    @property
    def reloads(self) -> bool:
        """Whether the saved model scores the same, within the rounding of merging an adapter in another order."""
        return abs(self.reloaded - self.trained) <= 1e-4 * abs(self.trained)

    @property
    def passes(self) -> bool:
        return self.better and self.as_declared and self.moved > 0 and self.reloads and self.resumed


_RECORD: Final = TypeAdapter(tuple[Evidence, ...])


@cache
def recorded() -> tuple[Evidence, ...]:
    """Return the evidence shipped with this version."""
    return _RECORD.validate_json(RECORD.read_bytes())


def write(found: tuple[Evidence, ...]) -> None:
    """Replace the record."""
    RECORD.write_bytes(_RECORD.dump_json(found, indent=1) + b"\n")
