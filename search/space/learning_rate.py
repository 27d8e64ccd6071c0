"""The default learning rate of a stage. One multiplier of it means the same for every update and model.

The rule is Tinker's (thinking-machines-lab/tinker-cookbook, `hyperparam_utils.py`), measured on Llama-type models: 5e-5
for full fine-tuning, or ten times that for LoRA of any rank, times (2000 / hidden size) ** 0.781. The factors of
algorithms and updates are in their declarations (`search.methods`); full fine-tuning's is 2.
"""

from __future__ import annotations

import math
from typing import Final

from luthier.design import Stage
from search.methods import ALGORITHM_OF, UPDATE_OF

FULL_AT_2000: Final = 5e-5
WIDTH_EXPONENT: Final = 0.781


def default_learning_rate(algorithm: str, update: str, hidden_size: int) -> float:
    """Return the peak learning rate of a stage, from the `kind` of its algorithm and update and the hidden size."""
    width = math.pow(2000 / hidden_size, WIDTH_EXPONENT)
    return FULL_AT_2000 * UPDATE_OF[update].learning_rate * ALGORITHM_OF[algorithm].learning_rate * width


def multiplier(stage: Stage, hidden_size: int) -> float:
    """Return a stage's learning rate relative to its default, with two significant digits."""
    usual = default_learning_rate(stage.algorithm.kind, stage.update.kind, hidden_size)
    return float(f"{stage.optimiser.learning_rate / usual:.2g}")


def rate_words(stage: Stage, hidden_size: int | None) -> str:
    """Return a stage's learning rate with its multiplier: `0.0003 (×0.6)`; without, for a model of unknown size."""
    rate = f"{stage.optimiser.learning_rate:.3g}"
    return rate if hidden_size is None else f"{rate} (×{multiplier(stage, hidden_size):g})"


def significant(value: float) -> float:
    """Round to three significant digits, so that equal designs have equal digests."""
    return float(f"{value:.3g}")
