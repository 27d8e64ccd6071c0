"""How well the cost model predicts trials that it was not fitted on: `python -m bench.cost`."""

from __future__ import annotations

from functools import cache
from typing import Final

from bench.trials import Draw, Task
from luthier.design import Design
from luthier.task import DataKind, TextSimilarity
from tests import data_samples

UPDATES: Final = ("full", "lora", "top_layers", "dora", "rslora", "pissa", "layernorm", "lora_plus", "vera", "ia3")
UPDATES_2: Final = ("oft", "adalora", "prompt", "prefix")
HELD_OUT: Final = 16


def _long(count: int) -> list[dict[str, str]]:
    """Pairs whose answers are several sentences."""
    texts = [row["text"] for row in data_samples.text(count)]
    return [
        {"prompt": pair["prompt"], "completion": text}
        for pair, text in zip(data_samples.pairs(count), texts, strict=True)
    ]


@cache
def tasks() -> dict[str, Task]:
    def task(name: str, kind: DataKind, rows: list, **settings: object) -> Task:
        return Task(name=name, kind=kind, train=tuple(rows[HELD_OUT:]), held_out=tuple(rows[:HELD_OUT]), **settings)

    found = [
        task("pairs", DataKind.PAIRS, data_samples.pairs(128 + HELD_OUT), grader=TextSimilarity()),
        task("long", DataKind.PAIRS, _long(72 + HELD_OUT), grader=TextSimilarity(), max_new_tokens=32),
        task("text", DataKind.TEXT, data_samples.text(80 + HELD_OUT)),
        task("preference", DataKind.PREFERENCE, data_samples.preference(72 + HELD_OUT)),
        task("unpaired", DataKind.UNPAIRED, data_samples.unpaired(72 + HELD_OUT)),
        task("graded", DataKind.PAIRS, data_samples.pairs(24 + HELD_OUT), grader=TextSimilarity(), max_new_tokens=8),
        task("encoder", DataKind.TEXT, data_samples.text(48 + HELD_OUT), model="tiny-encoder"),
    ]
    return {one.name: one for one in found}


WANTED: Final = (
    ("pairs", "sft", (*UPDATES, *UPDATES_2)),
    ("long", "sft", ("full", "lora", "dora", "top_layers", "pissa", "ia3", "lora", "full", "oft", "prompt")),
    (
        "text",
        "clm",
        ("full", "lora", "top_layers", "dora", "vera", "lora_plus", "adalora", "layernorm", "prefix", "full"),
    ),
    ("preference", "dpo", ("full", "lora", "dora", "top_layers", "rslora", "oft")),
    ("preference", "orpo", ("full", "lora", "ia3")),
    ("preference", "simpo", ("lora", "top_layers", "full")),
    ("preference", "sft+dpo", ("lora", "full", "dora")),
    ("preference", "reward_model+rloo", ("lora", "full")),
    ("unpaired", "kto", ("full", "lora", "top_layers", "dora")),
    ("graded", "grpo", ("full", "lora", "dora", "top_layers", "layernorm")),
    ("graded", "rloo", ("lora", "full", "pissa")),
    ("graded", "raft", ("lora", "full")),
    ("graded", "sft+grpo", ("lora", "full")),
    ("encoder", "mlm", ("full", "lora", "top_layers", "bitfit", "dora", "layernorm", "full", "lora")),
)


def plan() -> list[tuple[Task, Design]]:
    """The designs, drawn from the spaces of their tasks with program and update given."""
    found = []
    for name, program, updates in WANTED:
        task = tasks()[name]
        for number, update in enumerate(updates):
            draw = Draw(f"{name}/{program}/{update}/{number}", {"program": program, "update": update})
            design = task.space.sample(draw)
            found.append((task, design))
    return found
