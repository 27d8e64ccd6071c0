"""Rules that keep a search from locking onto one family of designs before it has looked at the others.

A family is the group of the first stage's weight update: LoRA and its near-twins are one. When the last few designs are
all of one family while others were hardly tried, only the others may be proposed next. When they are all of well-tried
families, one that was never tried comes next. The same holds for the training length.

Edits of the architecture rarely win on quality alone, so few designs have them unless the job asks for edits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from luthier.design import Design
from search.methods import UPDATE_OF
from search.space.space import Space

STREAK: Final = 4  # designs in a row with the same value that are a streak
FEW: Final = 2  # a value that was tried fewer times than this breaks a streak
PATIENCE: Final = 6  # designs in a row with well-tried values before one that was never tried comes next
EDITED_SHARE: Final = 1 / 8  # of the designs, where the job does not ask for edits
# Edits that are searched only where long rows ask for them.
ASKED_BY_DATA: Final = frozenset({"rope_factor"})


def family(design: Design) -> str:
    """Return the group of the first stage's weight update."""
    return UPDATE_OF[design.stages[0].update.kind].group


def length(design: Design) -> str:
    """Return the number of epochs of the first stage, as a name."""
    return f"{design.stages[0].optimiser.epochs:g}"


def edited(design: Design) -> bool:
    """Return whether the architecture has an edit that the data did not ask for."""
    return not ASKED_BY_DATA.issuperset(design.architecture.edits())


def allowed(space: Space, tried: Sequence[Design], candidates: Sequence[Design]) -> list[Design]:
    """Return the candidates that the rules allow after these designs; all of them if they would allow none.

    `tried` are the trained designs of the job in the order of their trials, whatever became of them.
    """
    left = list(candidates)
    if not space.edits_asked and not may_edit(tried):
        left = _those(left, lambda design: not edited(design))
    for axis in (family, length):
        overdue = _overdue([axis(design) for design in tried], {axis(design) for design in left})
        left = _those(left, lambda design, axis=axis, overdue=overdue: axis(design) in overdue)  # type: ignore[misc]
    return left


def may_edit(tried: Sequence[Design]) -> bool:
    """Return whether one more edited design stays within their share."""
    return sum(map(edited, tried)) < EDITED_SHARE * len(tried)


def _overdue(tried: Sequence[str], possible: set[str]) -> set[str]:
    """Return the possible values of which one must come next; all of them if none is overdue."""
    counts = Counter(tried)
    last = set(tried[-STREAK:])
    if len(tried) >= STREAK and len(last) == 1:
        return {value for value in possible - last if counts[value] < FEW} or possible
    if len(tried) >= PATIENCE and all(counts[value] >= FEW for value in tried[-PATIENCE:]):
        return {value for value in possible if not counts[value]} or possible
    return possible


def _those(designs: list[Design], fits: Callable[[Design], bool]) -> list[Design]:
    return [design for design in designs if fits(design)] or designs
