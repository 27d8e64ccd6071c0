"""The best moment of a stage at a constant learning rate, and when to stop looking for a better one.

A stage is scored on validation rows at moments that lie further and further apart. The weights of the best moment are
its result. The stage ends when it is much longer than to the best moment (early stopping: Prechelt 1998).
"""

from __future__ import annotations

import math
from typing import Final, Self

from pydantic import BaseModel, Field

from luthier.task import Objective
from luthier.trial import FIRST_MOMENT, MOMENT_FACTOR, Metrics

# The stage ends at so many times the steps of its best moment. Rewards of few answers are noisier than likelihoods.
PATIENCE: Final[dict[Objective, float]] = {"perplexity": MOMENT_FACTOR**2, "reward": MOMENT_FACTOR**3}


class Moments(BaseModel):
    """The moments of a stage so far. It is saved with each checkpoint."""

    rows_before: int = Field(default=0, description="rows that earlier stages have read")
    last: int = Field(default=0, description="step of the last moment")
    best_step: int = 0
    best_score: tuple[float, float] | None = Field(default=None, description="as `rank_key`: lower is better")
    best: Metrics | None = Field(default=None, description="None in the stage of a reward model")

    def due(self, step: int) -> bool:
        """Return whether the stage is to be scored at this step."""
        return step >= max(FIRST_MOMENT, math.ceil(self.last * MOMENT_FACTOR))

    def after(self, step: int, score: tuple[float, float], metrics: Metrics | None) -> Self:
        """Return the moments with this one, which is the best one if `best_step` is its step."""
        if self.best_score is None or score < self.best_score:
            changes = {"last": step, "best_step": step, "best_score": score, "best": metrics}
            return self.model_copy(update=changes)
        return self.model_copy(update={"last": step})

    def over(self, objective: Objective) -> bool:
        """Return whether a better moment is no longer expected."""
        return self.last >= self.best_step * PATIENCE[objective]
