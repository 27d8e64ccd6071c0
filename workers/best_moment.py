"""The best moment of a training at a constant learning rate, and when to stop looking for a better one.

The training is scored on validation rows at moments that lie further and further apart. The weights of the best moment
are its result. The training ends when it is much longer than to the best moment (early stopping: Prechelt 1998).
"""

from __future__ import annotations

import math
from typing import Final, Self

from pydantic import BaseModel, Field

from luthier.metrics import progress
from luthier.task import Objective
from luthier.trial import Metrics

FIRST: Final = 4  # optimiser steps before the first moment
FACTOR: Final = 1.5  # from one moment to the next
# The training ends at so many times the steps of its best moment. Rewards of few answers are noisier than likelihoods.
PATIENCE: Final[dict[Objective, float]] = {"perplexity": FACTOR**2, "reward": FACTOR**3}


class Moments(BaseModel):
    """The moments of a training so far. It is saved with each checkpoint."""

    last: int = Field(default=0, description="step of the last moment")
    best_step: int = 0
    best: Metrics | None = None

    def due(self, step: int) -> bool:
        """Return whether the training is to be scored at this step."""
        return step >= max(FIRST, math.ceil(self.last * FACTOR))

    def after(self, step: int, metrics: Metrics, objective: Objective) -> Self:
        """Return the moments with this one, which is the best one if `best_step` is its step."""
        if self.best is None or progress(metrics, objective) < progress(self.best, objective):
            return type(self)(last=step, best_step=step, best=metrics)
        return self.model_copy(update={"last": step})

    def over(self, objective: Objective) -> bool:
        """Return whether a better moment is no longer expected."""
        return self.last >= self.best_step * PATIENCE[objective]
