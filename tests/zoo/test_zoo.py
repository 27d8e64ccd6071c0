"""Every type of the zoo is read as plain transformers reads one row at a time. `make zoo` tries all of them."""

from __future__ import annotations

import math
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from luthier.task import DataKind, JudgeSpec
from luthier.updates import Update
from tests import data_samples
from tests.covering import params
from tests.textbook import logps
from tests.zoo.build import TOKENIZER, build
from tests.zoo.declarations import DECLARATIONS
from tests.zoo.updates import FIRST, UPDATES, by_nature
from workers.evaluate.judge import judge, renderer
from workers.train.layout_probe import layout_of
from workers.train.rollouts.sampling import sample
from workers.train.try_out import try_update

pytestmark = pytest.mark.filterwarnings("ignore")  # of families that warn of missing kernels and of old arguments

SPEC = JudgeSpec(kind=DataKind.TEXT, validation="", test="", objective="perplexity", window=64)
ROWS = data_samples.text(5)  # of 25 to 70 tokens, longer than all windows, chunks and original contexts


def proves(plan: tuple[str, Update]) -> set[str]:
    """What a training proves: that a member of the covering dozen trains, and that an update works on its layout."""
    name, update = plan
    if not DECLARATIONS[name].covering or update not in FIRST:
        return set()
    return {f"lora on {name}"} if update.kind == "lora" else {f"{update.kind} on {DECLARATIONS[name].layout} rows"}


PLANS = [
    pytest.param(*plan.values[0], id=plan.id, marks=plan.marks)
    for plan in params(product(DECLARATIONS, UPDATES), proves, lambda plan: f"{plan[0]}-{plan[1].kind}")
]
MEMBERS = [
    pytest.param(name, marks=() if declared.covering else pytest.mark.slow) for name, declared in DECLARATIONS.items()
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(TOKENIZER)
    return found


@torch.no_grad()
def plain_scores(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[float, float]:
    """Perplexity and bits per byte by plain passes over one row each."""
    render = renderer(tokenizer, SPEC)
    rows = [tokens for row in ROWS for tokens in render.answers(row, SPEC.kind)]
    total = -sum(float(logps(model, tokens.ids)[torch.tensor(tokens.target[1:])].double().sum()) for tokens in rows)
    size = sum(tokens.target_bytes for tokens in rows)
    return math.exp(total / sum(tokens.targets for tokens in rows)), total / math.log(2) / size


@pytest.mark.parametrize("name", MEMBERS)
def test_scores_and_answers_are_those_of_one_row_at_a_time(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    declared, model = DECLARATIONS[name], build(name)
    found = layout_of(model)
    assert (found.rows, found.batched_prompts) == (declared.layout, not declared.unbatched)
    perplexity, bits_per_byte = plain_scores(model, tokenizer)
    metrics = judge(model, tokenizer, SPEC, ROWS)
    assert metrics.perplexity == pytest.approx(perplexity, rel=1e-4)
    assert metrics.bits_per_byte == pytest.approx(bits_per_byte, rel=1e-4)
    prompts: list[Any] = [
        tokenizer.encode(row["text"])[:length] for row, length in zip(ROWS, (30, 7, 22), strict=False)
    ]
    together = sample(model, tokenizer, prompts, max_new_tokens=4, seed=None)
    assert together == [sample(model, tokenizer, [ids], max_new_tokens=4, seed=None)[0] for ids in prompts]


@pytest.mark.parametrize(("name", "update"), PLANS)
def test_an_update_trains_merges_and_loads_again_or_says_why_not(name: str, update: Update) -> None:
    declared, model = DECLARATIONS[name], build(name)
    reason = try_update(model, update)
    assert (reason is None) == (update.kind not in declared.without and by_nature(model, update)), reason


def test_the_documentation_lists_every_type() -> None:
    page = (Path(__file__).parents[2] / "docs" / "base-models.md").read_text(encoding="utf-8")
    table = page.split("<!-- zoo -->")[1].split("<!-- /zoo -->")[0]
    listed = dict(re.findall(r"^\| `([^`]+)` \| yes \| (\w+)", table, re.MULTILINE))
    assert listed == {name: declared.layout for name, declared in DECLARATIONS.items()}


def test_the_zoo_has_every_kind_of_layout_and_at_least_sixty_types() -> None:
    assert len(DECLARATIONS) >= 60
    assert {declared.layout for declared in DECLARATIONS.values() if declared.covering} == {
        "unpadded",
        "padded",
        "single",
    }
