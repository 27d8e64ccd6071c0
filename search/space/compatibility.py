"""The table of what goes with what: which algorithm learns from which data, with which models, updates and edits.

`search.space.validate` reads this table, the space offers what it lists, every refusal is one of its sentences, and
docs/design-space.md is printed from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Literal

from luthier.models.base_model import ModelFacts
from luthier.task import DataKind, Family


class Phase(IntEnum):
    """What a stage is for. The stages of a program go through them in this order, each at most once."""

    KNOWLEDGE = 1
    ANSWERS = 2
    PREFERENCES = 3
    SCORES = 4
    REWARDS = 5

    @property
    def words(self) -> str:
        match self:
            case Phase.KNOWLEDGE:
                return "know the text"
            case Phase.ANSWERS:
                return "answer like the examples"
            case Phase.PREFERENCES:
                return "prefer the better answer"
            case Phase.SCORES:
                return "learn to score answers"
            case Phase.REWARDS:
                return "earn rewards"


@dataclass(frozen=True, kw_only=True)
class AlgorithmRule:
    """A learning algorithm, what it does with each kind of data that it fits, and why it does not fit each other."""

    algorithm: str
    phase: Phase
    family: Family = "decoder"
    fits: Mapping[DataKind, str]
    refused: Mapping[DataKind, str]
    rewarded: bool = False  # whether it needs something that says how good an answer is
    followed_by: tuple[str, ...] = ()  # where it cannot stand last: what has to come next, and why
    otherwise: str = ""
    not_after: Mapping[str, str] = field(default_factory=dict)  # algorithms of earlier stages, and why not

    @property
    def goal(self) -> Literal["domain", "behaviour"]:
        """What a program that ends with this is for: knowing a text, or answering."""
        return "domain" if self.phase is Phase.KNOWLEDGE else "behaviour"


@dataclass(frozen=True, kw_only=True)
class UpdateRule:
    """A weight update, which models can take it, what the others lack, and which algorithms it is not for."""

    update: str
    possible: Callable[[ModelFacts], bool]
    otherwise: str
    refused: Mapping[str, str] = field(default_factory=dict)  # algorithms, and why not
    four_bit: bool = False  # whether workers need CUDA and bitsandbytes; searched only where all have them, or pinned
    mergeable: bool = True  # where not, the base model is needed as it is, and all stages have the same update


@dataclass(frozen=True, kw_only=True)
class EditRule:
    """An edit of the architecture, which models can take it, and what the others lack."""

    edit: str
    does: str
    possible: Callable[[ModelFacts], bool]
    otherwise: str


_ONE_ANSWER: Final = {
    DataKind.TEXT: "plain text has no answers to choose between",
    DataKind.PAIRS: "each prompt has one completion and no rejected one",
    DataKind.CHAT: "each conversation has one continuation and no rejected one",
    DataKind.PROMPTS: "the prompts have no answers",
    DataKind.UNPAIRED: "each prompt has one completion, desirable or not, and none to compare it with",
}

_NOT_PLAYED: Final = {
    DataKind.TEXT: "plain text asks nothing that could be answered and graded",
    DataKind.UNPAIRED: "nothing grades a new answer, only which given ones are desirable",
}

ALGORITHMS: Final = (
    AlgorithmRule(
        algorithm="clm",
        phase=Phase.KNOWLEDGE,
        fits={
            DataKind.TEXT: "learns every token",
            DataKind.PAIRS: "learns prompt and completion alike",
            DataKind.CHAT: "learns every message alike",
        },
        refused={
            DataKind.PREFERENCE: "two answers to one prompt are not one text, and one of them is to be avoided",
            DataKind.PROMPTS: "to know the prompts is not what they are for",
            DataKind.UNPAIRED: "the undesirable completions are to be avoided",
        },
    ),
    AlgorithmRule(
        algorithm="sft",
        phase=Phase.ANSWERS,
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
    ),
    AlgorithmRule(
        algorithm="dpo",
        phase=Phase.PREFERENCES,
        fits={DataKind.PREFERENCE: "prefers the chosen answer to the rejected one"},
        refused=_ONE_ANSWER,
    ),
    AlgorithmRule(
        algorithm="ipo",
        phase=Phase.PREFERENCES,
        fits={DataKind.PREFERENCE: "parts the chosen answer from the rejected one by a fixed margin"},
        refused=_ONE_ANSWER,
    ),
    AlgorithmRule(
        algorithm="simpo",
        phase=Phase.PREFERENCES,
        fits={DataKind.PREFERENCE: "makes the chosen answer likelier per token than the rejected one"},
        refused=_ONE_ANSWER,
    ),
    AlgorithmRule(
        algorithm="orpo",
        phase=Phase.PREFERENCES,
        fits={DataKind.PREFERENCE: "learns the chosen answer and prefers it to the rejected one at once"},
        refused=_ONE_ANSWER,
        not_after={"sft": "orpo learns the chosen answer itself and takes the place of sft"},
    ),
    AlgorithmRule(
        algorithm="kto",
        phase=Phase.PREFERENCES,
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
    ),
    AlgorithmRule(
        algorithm="reward_model",
        phase=Phase.SCORES,
        fits={DataKind.PREFERENCE: "trains a reward model on the pairs"},
        refused=_ONE_ANSWER,
        followed_by=("rloo", "grpo"),
        otherwise="a reward model trains no policy: rloo or grpo has to follow it directly",
    ),
    *[
        AlgorithmRule(
            algorithm=algorithm,
            phase=Phase.REWARDS,
            fits=dict.fromkeys(
                (DataKind.PROMPTS, DataKind.PAIRS, DataKind.CHAT, DataKind.PREFERENCE),
                f"answers itself and makes likelier what earns more than {others}",
            ),
            refused=_NOT_PLAYED,
            rewarded=True,
        )
        for algorithm, others in (("grpo", "its other answers"), ("rloo", "the mean of its other answers"))
    ],
    AlgorithmRule(
        algorithm="raft",
        phase=Phase.REWARDS,
        fits=dict.fromkeys(
            (DataKind.PROMPTS, DataKind.PAIRS, DataKind.CHAT), "answers itself and learns the best of its answers"
        ),
        refused=_NOT_PLAYED | {DataKind.PREFERENCE: "nothing grades a new answer, only which of two is better"},
        rewarded=True,
    ),
    AlgorithmRule(
        algorithm="mlm",
        phase=Phase.KNOWLEDGE,
        family="encoder",
        fits={DataKind.TEXT: "learns masked tokens from those around them"},
        refused={
            DataKind.PAIRS: "an encoder does not answer prompts",
            DataKind.CHAT: "an encoder does not converse",
            DataKind.PREFERENCE: "an encoder has no answers to prefer",
            DataKind.PROMPTS: "an encoder does not answer prompts",
            DataKind.UNPAIRED: "an encoder has no answers to prefer",
        },
    ),
)

# What is searched where no program is pinned, those that fit the data: from the most particular to the most general,
# so that the first one is the usual program of its data. Other legal sequences can be pinned.
RECIPES: Final = (
    *("dpo", "sft+dpo", "kto", "sft+kto", "sft", "clm", "ipo", "sft+ipo", "simpo", "sft+simpo", "orpo"),
    *("grpo", "rloo", "raft", "sft+grpo", "sft+rloo", "sft+raft"),
    *("reward_model+rloo", "reward_model+grpo", "sft+reward_model+rloo"),
    "mlm",
)


def _any(facts: ModelFacts) -> bool:
    return True


UPDATES: Final = (
    *[
        UpdateRule(update=update, possible=_any, otherwise="")
        for update in ("full", "lora", "rslora", "dora", "top_layers", "layernorm")
    ],
    UpdateRule(
        update="bitfit",
        possible=lambda facts: facts.biases,
        otherwise="bitfit moves biases alone, and {model} has none",
    ),
    *[
        UpdateRule(update=update, possible=_any, otherwise="")
        for update in ("pissa", "lora_plus", "vera", "ia3", "oft")
    ],
    UpdateRule(
        update="adalora",
        possible=_any,
        otherwise="",
        refused=dict.fromkeys(
            ("grpo", "rloo", "raft"),
            "ranks are decided by what each step moves, and a step whose answers all earn the same moves nothing",
        )
        | {"reward_model": "rloo or grpo has to follow, and adalora goes with neither"},
    ),
    *[
        UpdateRule(
            update=update,
            possible=lambda facts: facts.family == "decoder",
            otherwise="virtual tokens stand before what comes next, and {model} is an encoder, which reads both ways",
            refused={"reward_model": "a reward model is a plain model with a head, and virtual tokens are no weights"}
            | dict.fromkeys(
                ("grpo", "rloo", "raft"),
                "behind virtual tokens answers can only be drawn one at a time, at many times the cost",
            ),
            mergeable=False,
        )
        for update in ("prompt", "prefix")
    ],
    UpdateRule(update="qlora", possible=_any, otherwise="", four_bit=True),
)

EDITS: Final = (
    EditRule(
        edit="layers",
        does="keeps some of the layers: all but a late block, or those of the highest block influence",
        possible=lambda facts: facts.layers > 1,
        otherwise="{model} has one layer only",
    ),
    EditRule(
        edit="kv_heads",
        does="pools key and value heads into fewer (GQA), or into one (MQA)",
        possible=lambda facts: facts.family == "decoder" and facts.kv_heads > 1,
        otherwise="{model} has one key/value head only, or is an encoder, each of whose heads has its own",
    ),
    EditRule(
        edit="window",
        does="lets each token see only so many tokens before it",
        possible=lambda facts: facts.attention_window is not None,
        otherwise="the attention window of {model}, a {architecture}, cannot be set in all layers",
    ),
    EditRule(
        edit="rope_factor",
        does="reads a longer context: rotary positions are stretched, by YaRN or evenly",
        possible=lambda facts: facts.rope == "plain",
        otherwise="{model}, a {architecture}, has no rotary positions to stretch, or has them stretched already",
    ),
)
