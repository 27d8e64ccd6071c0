"""How long a training is expected to be, where its design only limits it."""

from __future__ import annotations

import math
from typing import Final

from luthier.design import Design, Optimiser
from luthier.trial import FIRST_MOMENT, MOMENT_FACTOR, RUNG_FACTOR, RUNGS, first_rung

EXPECTED_ROWS: Final = 1500  # read by a training that ends at its best moment, but at least one epoch


def expected_epochs(optimiser: Optimiser, rows: int) -> float:
    """Return the epochs that a stage on so many rows is expected to take: at a constant rate it ends by itself."""
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
    """Return how often a stage of so many optimiser steps is scored at a constant rate, without rungs."""
    return 1 + max(0, math.ceil(math.log(max(1.0, steps / FIRST_MOMENT), MOMENT_FACTOR)))
