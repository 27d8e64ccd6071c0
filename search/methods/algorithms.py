"""The learning algorithms, one declaration each, and the recipes that a search tries by default.

Learning rates are relative to that of sft (see `search.space.learning_rate`).
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
    DataKind.UNPAIRED: "each prompt has one completion, desirable or not, and no second one to compare it with",
}

_NO_ROLLOUTS: Final = {
    DataKind.TEXT: "plain text has no prompts to answer",
    DataKind.UNPAIRED: "new answers cannot be graded: only the given answers have labels",
}


def _windows(job: Workload, share: float = 1.0) -> Examples:
    """Return plain text in windows; `share` of the tokens are targets."""
    windows = max(1.0, math.ceil(job.target / job.window))
    length = job.target / windows
    return Examples(job.rows * windows, 1, length, share * length)


def _every_token(algorithm: Clm, job: Workload) -> Examples:
    whole = job.prompt + job.target
    return _windows(job) if job.kind is DataKind.TEXT else Examples(job.rows, 1, whole, whole)


def _answers(algorithm: Any, job: Workload) -> Examples:
    """Return the prompts with their answers; of unpaired rows only the desirable ones."""
    share = job.desirable if job.kind is DataKind.UNPAIRED else 1.0
    return Examples(max(1.0, job.rows * share), 1, job.prompt + job.target, job.target)


def _pairs(algorithm: Any, job: Workload) -> Examples:
    """Return two sequences per row: the prompt with the chosen answer, and with the rejected one."""
    return Examples(job.rows, 2, 2 * (job.prompt + job.target), 2 * job.target)


def _pairs_and_chosen(algorithm: Orpo, job: Workload) -> Examples:
    """Return the sequences of `_pairs`, plus the chosen answer again, with its prompt, for the likelihood term."""
    whole = job.prompt + job.target
    return Examples(job.rows, 3, job.prompt + 2 * whole, job.prompt + 2 * job.target)


def _single_answers(algorithm: Kto, job: Workload) -> Examples:
    answers = 2 if job.kind is DataKind.PREFERENCE else 1
    return Examples(job.rows * answers, 1, job.prompt + job.target, job.target)


def _groups(algorithm: Grpo | Rloo, job: Workload) -> Examples:
    """Return all the answers generated for each prompt."""
    group, new = algorithm.group, job.max_new_tokens
    return Examples(job.rows, group, group * (job.prompt + new), group * new)


def _best_of_group(algorithm: Raft, job: Workload) -> Examples:
    return Examples(job.rows, 1, job.prompt + job.max_new_tokens, job.max_new_tokens)


def _once(algorithm: Any, epochs: float) -> float:
    """Return the reference passes: log-probabilities are computed once, before the first step."""
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
            DataKind.PREFERENCE: "a row has two answers to one prompt, and clm would learn the rejected one too",
            DataKind.PROMPTS: "the prompts have no answers to learn",
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
            DataKind.TEXT: "plain text is not divided into prompts and answers",
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
            DataKind.TEXT: "plain text is not divided into prompts and answers",
            DataKind.PROMPTS: "the prompts have no answers to learn",
        },
        needs_teacher=True,
        learning_rate=1.0,  # cross-entropy with soft targets; its gradients are as large as those of sft
        settings={"share": (0.0, 0.5, 1.0), "beta": (0.1, 0.5, 0.9)},  # from the paper's experiments
        examples=_answers,
        rollouts=lambda algorithm: algorithm.share,
    ),
    AlgorithmSpec(
        member=Dpo,
        goal=StageGoal.PREFERENCES,
        fits={DataKind.PREFERENCE: "prefers the chosen answer to the rejected one"},
        refused=_ONE_ANSWER,
        # Preference gradients move the policy away from its reference, so published DPO runs use a tenth of SFT's rate.
        learning_rate=0.1,
        settings={"beta": Interval(low=0.02, high=0.5)},
        examples=_pairs,
        reference_passes=_once,
    ),
    AlgorithmSpec(
        member=Ipo,
        goal=StageGoal.PREFERENCES,
        fits={DataKind.PREFERENCE: "prefers the chosen answer to the rejected one by a fixed margin"},
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
        fits={DataKind.PREFERENCE: "learns the chosen answer and prefers it to the rejected one in one loss"},
        refused=_ONE_ANSWER,
        not_after={"sft": "orpo learns the chosen answer itself, so it replaces sft"},
        # Its loss includes that of sft. The paper trains at 5e-6 to 8e-6, and sft at 1e-5 to 2e-5.
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
            DataKind.PAIRS: "the completions are not labelled as desirable or undesirable",
            DataKind.CHAT: "the assistant's messages are not labelled as desirable or undesirable",
            DataKind.PROMPTS: "the prompts have no answers",
        },
        learning_rate=0.1,  # the paper uses the rate of dpo
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
        otherwise="a reward model does not train a policy, so rloo or grpo must follow directly",
        learning_rate=0.5,  # the rates of InstructGPT and TRL are about half of those for sft
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
        # The few rewards of a step are noisy: published runs of grpo and rloo use 1e-6 to 3e-6, sft 2e-5.
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
        refused=_NO_ROLLOUTS
        | {DataKind.PREFERENCE: "new answers cannot be graded: the data only says which of two answers is better"},
        rewarded=True,
        learning_rate=0.5,  # maximum likelihood, as in sft, but of the model's own answers
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

# The recipes searched by default, if they suit the data. The most specific ones come first, so that the first one that
# suits is the usual recipe for its data. Other legal sequences can be pinned.
RECIPES: Final = (
    *("dpo", "sft+dpo", "kto", "sft+kto", "sft", "clm", "ipo", "sft+ipo", "simpo", "sft+simpo", "orpo", "gkd"),
    *("grpo", "rloo", "raft", "sft+grpo", "sft+rloo", "sft+raft"),
    *("reward_model+rloo", "reward_model+grpo", "sft+reward_model+rloo"),
    "mlm",
)

ALGORITHM_OF: Final[Mapping[str, AlgorithmSpec]] = {spec.kind: spec for spec in ALGORITHMS}
SETTINGS: Final[Mapping[str, Setting]] = {setting.axis: setting for spec in ALGORITHMS for setting in spec.searched}
