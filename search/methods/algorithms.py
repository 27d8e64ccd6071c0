"""The learning algorithms, one declaration each, and the recipes that a search tries by default.

Learning rates are relative to sft's, which is `search.space.learning_rate`'s rule. Where two algorithms share a
reason, it stands once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from luthier.algorithms import (
    Clm,
    Dpo,
    Gkd,
    Grpo,
    Ipo,
    Kto,
    Mlm,
    Orpo,
    Raft,
    RewardModel,
    Rloo,
    Sft,
    Simpo,
)
from luthier.task import DataKind
from search.methods.amounts import Examples, Workload
from search.methods.spec import AlgorithmSpec, Interval, Setting, StageGoal

_ONE_ANSWER: Final = {
    DataKind.TEXT: "plain text has no answers to choose between",
    DataKind.PAIRS: "each prompt has one completion and no rejected one",
    DataKind.CHAT: "each conversation has one continuation and no rejected one",
    DataKind.PROMPTS: "the prompts have no answers",
    DataKind.UNPAIRED: "each prompt has one completion, desirable or not, and none to compare it with",
}

_NO_ROLLOUTS: Final = {
    DataKind.TEXT: "plain text has no prompts to answer",
    DataKind.UNPAIRED: "nothing grades a new answer: the labels are of the given answers only",
}


def _windows(job: Workload, share: float = 1.0) -> Examples:
    """Plain text in windows; `share` of the tokens are targets."""
    windows = max(1.0, math.ceil(job.target / job.window))
    length = job.target / windows
    return Examples(job.rows * windows, 1, length, share * length)


def _every_token(algorithm: Clm, job: Workload) -> Examples:
    whole = job.prompt + job.target
    return _windows(job) if job.kind is DataKind.TEXT else Examples(job.rows, 1, whole, whole)


def _answers(algorithm: Any, job: Workload) -> Examples:
    """The answers; of unpaired rows the desirable ones."""
    share = job.desirable if job.kind is DataKind.UNPAIRED else 1.0
    return Examples(max(1.0, job.rows * share), 1, job.prompt + job.target, job.target)


def _pairs(algorithm: Any, job: Workload) -> Examples:
    """Two sequences a row: the prompt with the chosen answer, and with the rejected one."""
    return Examples(job.rows, 2, 2 * (job.prompt + job.target), 2 * job.target)


def _pairs_and_chosen(algorithm: Orpo, job: Workload) -> Examples:
    """As `_pairs`, and the chosen answer once more, prompt included, for its likelihood."""
    whole = job.prompt + job.target
    return Examples(job.rows, 3, job.prompt + 2 * whole, job.prompt + 2 * job.target)


def _single_answers(algorithm: Kto, job: Workload) -> Examples:
    answers = 2 if job.kind is DataKind.PREFERENCE else 1
    return Examples(job.rows * answers, 1, job.prompt + job.target, job.target)


def _groups(algorithm: Grpo | Rloo, job: Workload) -> Examples:
    """All the answers that were generated for a prompt."""
    group, new = algorithm.group, job.max_new_tokens
    return Examples(job.rows, group, group * (job.prompt + new), group * new)


def _best_of_group(algorithm: Raft, job: Workload) -> Examples:
    return Examples(job.rows, 1, job.prompt + job.max_new_tokens, job.max_new_tokens)


def _once(algorithm: Any, epochs: float) -> float:
    """Reference log-probabilities are computed before the first step and kept."""
    return 1.0 / max(1.0, epochs)


ALGORITHMS: Final = (
    AlgorithmSpec(
        member=Clm,
        goal=StageGoal.KNOWLEDGE,
        fits={
            DataKind.TEXT: "learns every token",
            DataKind.PAIRS: "learns prompt and completion alike",
            DataKind.CHAT: "learns every message alike",
        },
        refused={
            DataKind.PREFERENCE: "two answers to one prompt are not one text, and one of them is the worse one",
            DataKind.PROMPTS: "the prompts alone are not what is to be learnt",
            DataKind.UNPAIRED: "it would learn the undesirable completions too",
        },
        learning_rate=1.0,
        examples=_every_token,
    ),
    AlgorithmSpec(
        member=Sft,
        goal=StageGoal.ANSWERS,
        fits={
            DataKind.PAIRS: "learns the completion",
            DataKind.CHAT: "learns the assistant's messages",
            DataKind.PREFERENCE: "learns the chosen answer",
            DataKind.UNPAIRED: "learns the desirable completions",
        },
        refused={
            DataKind.TEXT: "plain text has no prompt to tell apart from an answer",
            DataKind.PROMPTS: "the prompts have no answers to learn",
        },
        learning_rate=1.0,
        examples=_answers,
    ),
    AlgorithmSpec(
        member=Gkd,
        goal=StageGoal.ANSWERS,
        fits={
            DataKind.PAIRS: "learns a larger model's predictions of the completion",
            DataKind.CHAT: "learns a larger model's predictions of the assistant's messages",
            DataKind.PREFERENCE: "learns a larger model's predictions of the chosen answer",
            DataKind.UNPAIRED: "learns a larger model's predictions of the desirable completions",
        },
        refused={
            DataKind.TEXT: "plain text has no prompt to tell apart from an answer",
            DataKind.PROMPTS: "the prompts have no answers to learn",
        },
        needs_teacher=True,
        learning_rate=1.0,  # the cross-entropy of soft targets, with gradients of the size of sft's
        settings={"share": (0.0, 0.5, 1.0), "beta": (0.1, 0.5, 0.9)},  # of the paper's experiments
        examples=_answers,
        rollouts=lambda algorithm: algorithm.share,
    ),
    AlgorithmSpec(
        member=Dpo,
        goal=StageGoal.PREFERENCES,
        fits={DataKind.PREFERENCE: "prefers the chosen answer to the rejected one"},
        refused=_ONE_ANSWER,
        # Preference gradients move the policy away from its reference: published DPO runs use a tenth of SFT's rate.
        learning_rate=0.1,
        settings={"beta": Interval(low=0.02, high=0.5)},
        examples=_pairs,
        reference_passes=_once,
    ),
    AlgorithmSpec(
        member=Ipo,
        goal=StageGoal.PREFERENCES,
        fits={DataKind.PREFERENCE: "separates the chosen answer from the rejected one by a fixed margin"},
        refused=_ONE_ANSWER,
        learning_rate=0.1,
        settings={"beta": Interval(low=0.02, high=1.0)},
        examples=_pairs,
        reference_passes=_once,
    ),
    AlgorithmSpec(
        member=Simpo,
        goal=StageGoal.PREFERENCES,
        fits={DataKind.PREFERENCE: "makes the chosen answer likelier per token than the rejected one"},
        refused=_ONE_ANSWER,
        learning_rate=0.1,
        settings={"beta": Interval(low=1.0, high=10.0), "gamma": Interval(low=0.2, high=3.0)},
        examples=_pairs,
    ),
    AlgorithmSpec(
        member=Orpo,
        goal=StageGoal.PREFERENCES,
        fits={DataKind.PREFERENCE: "learns the chosen answer and prefers it to the rejected one at once"},
        refused=_ONE_ANSWER,
        not_after={"sft": "orpo learns the chosen answer itself and takes the place of sft"},
        # It holds the likelihood of sft: its paper trains at 5e-6 to 8e-6 where sft took 1e-5 to 2e-5.
        learning_rate=0.3,
        settings={"beta": Interval(low=0.02, high=1.0)},
        examples=_pairs_and_chosen,
    ),
    AlgorithmSpec(
        member=Kto,
        goal=StageGoal.PREFERENCES,
        fits={
            DataKind.UNPAIRED: "makes desirable completions likelier and undesirable ones less likely",
            DataKind.PREFERENCE: "makes chosen answers likelier and rejected ones less likely, each on its own",
        },
        refused={
            DataKind.TEXT: "plain text has no answers that could be desirable or not",
            DataKind.PAIRS: "nothing says which completions are undesirable",
            DataKind.CHAT: "nothing says which of the assistant's messages are undesirable",
            DataKind.PROMPTS: "the prompts have no answers",
        },
        learning_rate=0.1,  # its paper trains at dpo's rate
        settings={"beta": Interval(low=0.02, high=0.5), "desirable_weight": Interval(low=0.5, high=2.0)},
        examples=_single_answers,
        reference_passes=lambda algorithm, epochs: 3.0,
        keeps_start=lambda algorithm: True,
    ),
    AlgorithmSpec(
        member=RewardModel,
        goal=StageGoal.SCORES,
        fits={DataKind.PREFERENCE: "trains a reward model on the pairs"},
        refused=_ONE_ANSWER,
        followed_by=("rloo", "grpo"),
        otherwise="a reward model trains no policy: rloo or grpo has to follow it directly",
        learning_rate=0.5,  # InstructGPT's, and TRL's default, are about half of what their sft took
        examples=_pairs,
    ),
    AlgorithmSpec(
        member=Grpo,
        goal=StageGoal.REWARDS,
        fits=dict.fromkeys(
            (DataKind.PROMPTS, DataKind.PAIRS, DataKind.CHAT, DataKind.PREFERENCE),
            "generates answers and makes those with more reward than its other answers likelier",
        ),
        refused=_NO_ROLLOUTS,
        rewarded=True,
        # The few rewards of a step are mostly noise: published runs of grpo and rloo take 1e-6 to 3e-6, sft 2e-5.
        learning_rate=0.1,
        settings={"group": (4, 8), "beta": (0.0, 0.01, 0.04)},
        examples=_groups,
        reference_passes=lambda algorithm, epochs: 1.0 if algorithm.beta else 0.0,
        keeps_start=lambda algorithm: bool(algorithm.beta),
        rollouts=lambda algorithm: algorithm.group,
    ),
    AlgorithmSpec(
        member=Rloo,
        goal=StageGoal.REWARDS,
        fits=dict.fromkeys(
            (DataKind.PROMPTS, DataKind.PAIRS, DataKind.CHAT, DataKind.PREFERENCE),
            "generates answers and makes those with more reward than the mean of its other answers likelier",
        ),
        refused=_NO_ROLLOUTS,
        rewarded=True,
        learning_rate=0.1,
        settings={"group": (4, 8), "beta": (0.0, 0.01, 0.05)},
        examples=_groups,
        reference_passes=lambda algorithm, epochs: 2.0 if algorithm.beta else 0.0,
        keeps_start=lambda algorithm: bool(algorithm.beta),
        rollouts=lambda algorithm: algorithm.group,
    ),
    AlgorithmSpec(
        member=Raft,
        goal=StageGoal.REWARDS,
        fits=dict.fromkeys(
            (DataKind.PROMPTS, DataKind.PAIRS, DataKind.CHAT), "generates answers and learns the best of them"
        ),
        refused=_NO_ROLLOUTS | {DataKind.PREFERENCE: "nothing grades a new answer, only which of two is better"},
        rewarded=True,
        learning_rate=0.5,  # maximum likelihood of the model's own answers
        settings={"group": (4, 8)},
        examples=_best_of_group,
        rollouts=lambda algorithm: algorithm.group,
    ),
    AlgorithmSpec(
        member=Mlm,
        goal=StageGoal.KNOWLEDGE,
        family="encoder",
        fits={DataKind.TEXT: "learns masked tokens from those around them"},
        refused={
            DataKind.PAIRS: "an encoder does not answer prompts",
            DataKind.CHAT: "an encoder does not converse",
            DataKind.PREFERENCE: "an encoder has no answers to prefer",
            DataKind.PROMPTS: "an encoder does not answer prompts",
            DataKind.UNPAIRED: "an encoder has no answers to prefer",
        },
        learning_rate=1.0,
        settings={"mask": Interval(low=0.1, high=0.4)},
        examples=lambda algorithm, job: _windows(job, algorithm.mask),
    ),
)

# Tried where no recipe is pinned, those that fit the data: from the most particular to the most general, so that the
# first one is the usual recipe of its data. Other legal sequences can be pinned.
RECIPES: Final = (
    *("dpo", "sft+dpo", "kto", "sft+kto", "sft", "clm", "ipo", "sft+ipo", "simpo", "sft+simpo", "orpo", "gkd"),
    *("grpo", "rloo", "raft", "sft+grpo", "sft+rloo", "sft+raft"),
    *("reward_model+rloo", "reward_model+grpo", "sft+reward_model+rloo"),
    "mlm",
)

ALGORITHM_OF: Final[Mapping[str, AlgorithmSpec]] = {spec.kind: spec for spec in ALGORITHMS}
SETTINGS: Final[Mapping[str, Setting]] = {setting.axis: setting for spec in ALGORITHMS for setting in spec.searched}
