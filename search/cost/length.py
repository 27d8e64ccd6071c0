"""How many epochs a training is expected to take, and where its rungs lie in it.

Under `constant` a training ends by itself, and `epochs` is only its limit.
"""

from __future__ import annotations

import math
from typing import Final

from luthier.design import Design, Optimiser
from luthier.trial import FIRST_MOMENT, MOMENT_FACTOR, RUNG_FACTOR, RUNGS, first_rung

# Rows that a self-ending stage is expected to read, but at least one epoch and at most its limit.
EXPECTED_ROWS: Final = 1500


def expected_epochs(optimiser: Optimiser, rows: int) -> float:
    """Return the epochs that a stage on so many rows is expected to take: under `constant` it ends by itself."""
    if optimiser.schedule == "cosine":
        return optimiser.epochs
    return min(optimiser.epochs, max(1.0, EXPECTED_ROWS / rows))


def rung_shares(design: Design, rows: int) -> tuple[float, ...]:
    """Return the shares of the expected training at which its rungs lie, given the number of training rows.

    The stage of a reward model does not count, as in the training itself.
    """
    if not design.self_ending:
        return RUNGS
    counted = [stage.optimiser for stage in design.stages if stage.algorithm.kind != "reward_model"]
    whole = rows * sum(expected_epochs(optimiser, rows) for optimiser in counted)
    first = first_rung(design, rows) / whole
    count = max(0, math.ceil(-math.log(first, RUNG_FACTOR)))
    return tuple(first * RUNG_FACTOR**rung for rung in range(count))


def moments(steps: int) -> int:
    """Return at how many moments a self-ending stage of so many optimiser steps is scored. Rungs are not counted."""
    return 1 + max(0, math.ceil(math.log(max(1.0, steps / FIRST_MOMENT), MOMENT_FACTOR)))
