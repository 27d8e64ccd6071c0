"""A past job for each task, for searches to remember: `python -m bench.past`. About twenty CPU-minutes.

A job of the usual size on other rows of the task's source, from several seeds, searched by Luthier and trained for
real. Written down is the order of merit of its designs, which is all that is remembered of a job.
"""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import dataclass, field
from typing import Any, Final

from bench.atlas.past import FILE, SEEDS
from bench.atlas.record import begin, record
from bench.atlas.table import Curve, curve
from bench.atlas.tasks import PAST, Task, named, rows
from bench.replay import replay
from bench.searchers import Luthier
from luthier.design import Design
from search.policy.asha import overall_ranking

TRIALS: Final = 24


@dataclass(frozen=True)
class Training:
    """Trains the designs whose curves are asked for, each once."""

    task: Task
    known: dict[str, Curve] = field(default_factory=dict)

    def curve(self, design: Design) -> Curve:
        digest = design.digest()
        if digest not in self.known:
            self.known[digest] = curve(design, record(self.task, design))
        return self.known[digest]


def search(work: tuple[str, int]) -> dict[str, Any]:
    """One past job: its line."""
    name, seed = work
    task = named(name)
    searcher = Luthier(task.space, seed, TRIALS)
    for _ in replay(Training(task), searcher, workers=2):
        pass
    ranked = [task.space.encode(past.design) for past in overall_ranking(searcher.seen) if past.design.stages]
    return {"task": name, "seed": seed, "ranked": ranked}


def main() -> None:
    for task in PAST:
        rows(task)  # fetched once, before the processes ask for them
    work = [(task.name, seed) for task in PAST for seed in range(SEEDS)]
    with multiprocessing.get_context("spawn").Pool(2, begin) as pool, FILE.open("w", encoding="utf-8") as file:
        for done, line in enumerate(pool.imap(search, work), 1):
            file.write(json.dumps(line) + "\n")
            file.flush()
            print(f"\r{done} of {len(work)} jobs ", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
