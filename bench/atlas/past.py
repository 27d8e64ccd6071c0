"""What past jobs on other rows of each task's source left behind; `python -m bench.past` wrote it down."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from bench.atlas.tasks import MODEL, Task, entry
from search.policy.priors import baselines
from search.policy.warm_start import JobContext, SimilarJob, best_designs, similarity_of

FILE: Final = Path(__file__).parent / "past.jsonl"
SEEDS: Final = 4  # jobs for each task
TOKENS_A_ROW: Final = 50  # about so many, in each task


def remembered(task: Task, seed: int) -> SimilarJob:
    """What one of the past jobs left behind."""
    ctx = _job_context(task)
    designs = [task.space.decode(answers) for answers in _lines()[f"past {task.name}", seed % SEEDS]]
    best = best_designs(designs, baselines(task.space)[1])
    return SimilarJob(
        similarity=similarity_of(ctx, ctx), best=best, hidden_sizes={MODEL.name: entry().facts.hidden_size}
    )


@cache
def _lines() -> dict[tuple[str, int], list[dict[str, Any]]]:
    lines = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
    return {(line["task"], line["seed"]): line["ranked"] for line in lines}


def _job_context(task: Task) -> JobContext:
    return JobContext(
        kind=task.kind,
        objective=task.spec.objective,
        tokens=TOKENS_A_ROW * task.train,
        base=MODEL.name,
        parameters=entry().facts.parameters,
    )
