"""The learning rate that a design starts from, so that one multiplier means the same for every update and model.

The rule is Tinker's (thinking-machines-lab/tinker-cookbook, `hyperparam_utils.py`): 5e-5 for full fine-tuning, ten
times that for LoRA whatever its rank, times (2000 / hidden size) ** 0.781 as measured on Llama-type models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

FULL_AT_2000: Final = 5e-5
WIDTH_EXPONENT: Final = 0.781

# Preference gradients move the policy away from its reference: published DPO runs use about a tenth of SFT's rate.
ALGORITHM_FACTOR: Final[Mapping[str, float]] = {
    "clm": 1.0,
    "sft": 1.0,
    "dpo": 0.1,
    "ipo": 0.1,
    "simpo": 0.1,
    "orpo": 0.3,  # it holds the likelihood of sft: its paper trains at 5e-6 to 8e-6 where sft took 1e-5 to 2e-5
    # A step's few rewards are noise mostly: published runs of grpo and rloo take 1e-6 to 3e-6 where sft takes 2e-5.
    "grpo": 0.1,
    "rloo": 0.1,
    "raft": 0.5,  # maximum likelihood, of what the model says by itself
    "kto": 0.1,  # its paper trains at dpo's rate
    "reward_model": 0.5,  # InstructGPT's, and TRL's default, are about half of what their sft took
    "mlm": 1.0,
}
UPDATE_FACTOR: Final[Mapping[str, float]] = {
    "full": 1.0,
    "lora": 10.0,
    "rslora": 10.0,
    "dora": 10.0,
    "top_layers": 2.0,
    # From here on rough: near the best of several factors, each about 3 times the one before, by held-out loss after 48
    # steps of sft on one tiny model's chats. The optimum of lora was 1 to 3 times its factor in such runs.
    "layernorm": 250.0,
    "bitfit": 150.0,
    "pissa": 5.0,  # its weights are large from the start, and all of them move at once
    "qlora": 10.0,  # lora's, as in its paper
    "lora_plus": 2.5,  # the rate of A; with B at 16 times that, their geometric mean is LoRA's
    "vera": 300.0,
    "ia3": 500.0,
    "oft": 10.0,
    "adalora": 50.0,
    "prompt": 100.0,
    "prefix": 500.0,
}


def default_learning_rate(algorithm: str, update: str, hidden_size: int) -> float:
    """Peak learning rate of one stage, by the `kind` of its algorithm and update and the model's hidden size."""
    width = math.pow(2000 / hidden_size, WIDTH_EXPONENT)
    return FULL_AT_2000 * UPDATE_FACTOR[update] * ALGORITHM_FACTOR[algorithm] * width


def significant(value: float) -> float:
    """Round to three significant digits, so that equal designs have equal digests."""
    return float(f"{value:.3g}")
