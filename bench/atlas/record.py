"""Train every design of the atlas's grids and record its learning curve: `python -m bench.atlas.record`.

Each design is one line of `bench/atlas/<task>.jsonl`: its parameters, the CPU seconds of training and of scoring up to
each rung and to the end, and its scores there (`standing`: the objective, then the two sort keys; lower is better). The
first line is the untuned model. Designs that are already in the file are skipped. About two and a half CPU-hours.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch

from bench.atlas.tasks import TASKS, Task, entry, named, rows
from luthier.design import Design
from luthier.errors import LuthierError
from luthier.trial import RUNGS
from search.policy.ranking import rung_score
from workers import cache
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
    """Scores a trial at each rung, and counts the CPU seconds of training and of scoring separately."""

    def __init__(self, task: Task, held_out: list[dict[str, Any]]) -> None:
        self.task, self.held_out = task, held_out
        self.trained: list[float] = []
        self.scored: list[float] = []
        self.scores: list[tuple[float, ...]] = []
        self._began, self._scoring = time.process_time(), 0.0

    def after_step(self, progress: Progress) -> None:
        for share in RUNGS:
            if progress.before < share <= progress.share:
                few = {"max_rows": self.task.rung_rows, "max_generations": RUNG_GENERATIONS}
                self.score(progress.model, few)

    def score(self, model: CausalModel, limits: dict[str, int] | None = None) -> None:
        spec = self.task.spec.model_copy(update=limits or {})
        before = time.process_time()
        metrics = judge(model, cache.base(entry()).tokenizer, spec, self.held_out)
        self._scoring += time.process_time() - before
        self.trained.append(round(time.process_time() - self._began - self._scoring, 4))
        self.scored.append(round(self._scoring, 4))
        found = rung_score(metrics, spec.objective)
        self.scores.append(tuple(round(number, 5) for number in (found.value, *found.rank_key)))


def record(task: Task, design: Design) -> dict[str, Any]:
    """Train one design and return its line of the file."""
    _, held_out = rows_of(task.name)
    recorder = Recorder(task, held_out)
    base = cache.base(entry())
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
    return line | {"trained": recorder.trained, "scored": recorder.scored, "standing": recorder.scores}


@functools.cache
def rows_of(name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return rows(named(name))


@functools.cache
def _examples(name: str, kind: str) -> list[Example]:
    from search.space.space import algorithm

    task = named(name)
    render = renderer(cache.base(entry()).tokenizer, task.spec)
    learn = objective(algorithm(kind))
    return [example for row in rows_of(name)[0] for example in learn.examples(row, task.kind, render)]


def begin() -> None:
    """Initialise a process."""
    torch.set_num_threads(1)


def _one(work: tuple[str, Design]) -> dict[str, Any]:
    return record(named(work[0]), work[1])


def missing(task: Task) -> Iterator[Design]:
    """Yield the designs of the grid that are not recorded yet, the untuned model first."""
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
    parser.add_argument("--only", choices=[task.name for task in TASKS], help="record only this task")
    parser.add_argument("--workers", type=int, default=2, help="number of single-threaded processes (default: 2)")
    parser.add_argument("--most", type=int, help="stop after this many designs of each task")
    given = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(given.workers, begin) as pool:
        for task in TASKS:
            if given.only not in (None, task.name):
                continue
            rows(task)  # download once, before the processes start
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
