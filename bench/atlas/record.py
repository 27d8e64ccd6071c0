"""Train every design of the atlas's grids and write down what was seen: `python -m bench.atlas.record`.

One line of `bench/atlas/<task>.jsonl` for each design: the answers that make it, CPU-seconds of training and of scoring
up to each rung and to the end, and its standing there, the objective first and then what trials are compared by: lower
is better of all. The first line is the untuned model's. What is there already is not done again. About two and a half
CPU-hours.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch

from bench.atlas.tasks import TASKS, Task, entry, named, rows
from luthier.design import Design
from luthier.errors import LuthierError
from luthier.trial import RUNGS
from search.policy.ranking import rung_score
from workers import cache as warm
from workers.evaluate.judge import judge, renderer
from workers.train.algorithms import Example, objective
from workers.train.architectures import build
from workers.train.forward import CausalModel
from workers.train.loop import Progress, train
from workers.train.rollouts.play import world_of

FOLDER: Final = Path(__file__).parent
SEED: Final = 1
RUNG_GENERATIONS: Final = 12


class Recorder:
    """Scores a trial at each rung, and keeps the CPU-seconds of training and of scoring apart."""

    def __init__(self, task: Task, held_out: list[dict[str, Any]]) -> None:
        self.task, self.held_out = task, held_out
        self.trained: list[float] = []
        self.scored: list[float] = []
        self.standing: list[tuple[float, ...]] = []
        self._began, self._scoring = time.process_time(), 0.0

    def after_step(self, progress: Progress) -> None:
        for share in RUNGS:
            if progress.before < share <= progress.share:
                few = {"max_rows": self.task.rung_rows, "max_generations": RUNG_GENERATIONS}
                self.score(progress.model, few)

    def score(self, model: CausalModel, limits: dict[str, int] | None = None) -> None:
        spec = self.task.spec.model_copy(update=limits or {})
        before = time.process_time()
        metrics = judge(model, warm.base(entry()).tokenizer, spec, self.held_out)
        self._scoring += time.process_time() - before
        self.trained.append(round(time.process_time() - self._began - self._scoring, 4))
        self.scored.append(round(self._scoring, 4))
        found = rung_score(metrics, spec.objective)
        self.standing.append(tuple(round(number, 5) for number in (found.value, *found.rank_key)))


def record(task: Task, design: Design) -> dict[str, Any]:
    """Train one design; its line."""
    _, held_out = rows_of(task.name)
    recorder = Recorder(task, held_out)
    base = warm.base(entry())
    render = renderer(base.tokenizer, task.spec)
    world = world_of(task.spec, render)
    line: dict[str, Any] = {"answers": task.space.encode(design) if design.stages else {}}
    try:
        model = build(base.model, design.architecture, ())
        if design.stages:
            examples = {stage.algorithm.kind: _examples(task.name, stage.algorithm.kind) for stage in design.stages}
            trained = train(
                model, design, lambda stage: examples[stage.algorithm.kind], seed=SEED, watch=recorder, world=world
            )
            model = trained.judged()
        recorder.score(model)
    except LuthierError as error:
        line["error"] = error.message
    return line | {"trained": recorder.trained, "scored": recorder.scored, "standing": recorder.standing}


@cache
def rows_of(name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return rows(named(name))


@cache
def _examples(name: str, kind: str) -> list[Example]:
    from search.space.space import algorithm

    task = named(name)
    render = renderer(warm.base(entry()).tokenizer, task.spec)
    learn = objective(algorithm(kind))
    return [example for row in rows_of(name)[0] for example in learn.examples(row, task.kind, render)]


def begin() -> None:
    """What a process does before it trains."""
    torch.set_num_threads(1)


def _one(work: tuple[str, Design]) -> dict[str, Any]:
    return record(named(work[0]), work[1])


def missing(task: Task) -> Iterator[Design]:
    """The designs of the grid that have no line yet, the untuned model first."""
    file = FOLDER / f"{task.name}.jsonl"
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
    known = {json.dumps(line["answers"], sort_keys=True) for line in lines}
    if not known:
        yield Design(architecture={"base": entry().name})
    space = task.space
    for design in task.designs():
        if json.dumps(space.encode(design), sort_keys=True) not in known:
            yield design


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[task.name for task in TASKS], help="record one task alone")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each (default: 2)")
    parser.add_argument("--most", type=int, help="stop after so many designs of each task")
    given = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(given.workers, begin) as pool:
        for task in TASKS:
            if given.only not in (None, task.name):
                continue
            rows(task)  # fetched once, before the processes ask for them
            work = [(task.name, design) for design in missing(task)][: given.most]
            began = time.monotonic()
            with (FOLDER / f"{task.name}.jsonl").open("a", encoding="utf-8") as file:
                for done, line in enumerate(pool.imap(_one, work), 1):
                    file.write(json.dumps(line) + "\n")
                    file.flush()
                    left = (time.monotonic() - began) / done * (len(work) - done) / 60
                    print(f"\r{task.name}: {done} of {len(work)} designs, {left:.0f} min left ", end="", flush=True)
            print()


if __name__ == "__main__":
    main()
