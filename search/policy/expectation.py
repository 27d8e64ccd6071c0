"""What is expected of a design before any trial of the job is scored: the prior mean of the surrogate.

The learning rate times the weight update explains most of the variance on every recorded table, whatever the task. So
each group of updates has a level, a best learning rate and a curvature around it; longer training and smaller batches
are expected to be better. The constants are rounded from least-squares fits on recorded curves: `python -m
bench.portfolio` fits them on half of the tasks and prints what they explain of the other half.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from search.methods import StageGoal
from search.policy.features import Features


class Valley(NamedTuple):
    """Normal score of a group of updates over the learning rate; the score is lower for better designs."""

    level: float  # at the best learning rate, for one epoch of batches of 8 rows
    best: float  # learning rate, as the power of four of its factor on the default
    curvature: float  # how much worse the score is at four times, or at a quarter of, the best rate


VALLEYS: Final[Mapping[str, Valley]] = {
    "full": Valley(-1.3, 1.0, 0.5),
    "partial": Valley(-0.9, 1.0, 0.5),
    "low_rank": Valley(-0.8, 0.2, 0.7),
    "adapters": Valley(-0.4, 0.2, 0.7),
    "scales": Valley(0.0, 0.0, 0.5),
    "tokens": Valley(0.3, 0.0, 0.5),
}
EPOCHS: Final = -0.8  # for three times as many epochs
BATCH: Final = 0.8  # for a batch eight times as large
# Defaults of preference and reward algorithms are a tenth of those of likelihood; their best rates are higher.
LATE_GOALS: Final = frozenset({StageGoal.PREFERENCES.name, StageGoal.REWARDS.name})
LATE_SHIFT: Final = 0.8
FARTHEST: Final = 2.0  # beyond 16 times the best rate, or a 16th of it, nothing was recorded


def expected(design: Features) -> float:
    """Return the expected normal score of a design, up to a constant of the job."""
    valley, numbers = VALLEYS[design.names["update_group"]], design.numbers
    best = valley.best + LATE_SHIFT * (design.names["last_objective"] in LATE_GOALS)
    off = min(abs(numbers["learning_rate"] - best), FARTHEST)
    length = EPOCHS * numbers.get("epochs", 0.0)  # a training that ends at its best moment has none
    return valley.level + valley.curvature * off**2 + length + BATCH * numbers["batch_size"]
