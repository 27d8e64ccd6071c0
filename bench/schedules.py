"""Compare learning-rate schedules: what a design scores when it is trained to each of several lengths.

`python -m bench.schedules record` trains designs of the atlas's tasks and appends one line per design to
`bench/results/schedules.jsonl`; designs that are in the file are skipped. About twenty CPU-minutes.
`python -m bench.schedules` prints the comparison from that file.

Under `constant` one run gives the score at every length. Under `cosine` each length is a run of its own. The score is
that of held-out rows, lower is better: bits per byte, and for preferences the negative margin. Half of the rows choose
the best length, and the other half give its score.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.atlas.record import SEED, begin
from bench.atlas.tasks import TASKS, Row, Task, entry, named, rows
from luthier.design import Optimiser, Schedule
from luthier.errors import TrialFailed
from luthier.updates import Full, Lora, Update
from search.policy.ranking import rung_score
from search.space.learning_rate import default_learning_rate
from search.space.space import algorithm
from workers import cache
from workers.evaluate.judge import judge, renderer
from workers.train import updates
from workers.train.algorithms import objective
from workers.train.stage_trainer import StageTrainer

FILE: Final = Path(__file__).parent / "results" / "schedules.jsonl"
ALGORITHMS: Final = {"domain": "clm", "instruction": "sft", "verifiable": "sft", "preference": "dpo"}
UPDATES: Final[dict[str, Update]] = {"full": Full(), "lora": Lora(rank=16)}
MULTIPLIERS: Final = (1.0, 4.0, 16.0)  # of the default learning rate
BATCH: Final = 4
FACTOR: Final = 1.5  # between two lengths of the constant schedule
COSINE_LENGTHS: Final = (1.0, 3.0, 9.0)  # in epochs; the last one is also the end of the runs at a constant rate

Scores = tuple[float, float]  # of the two halves of the held-out rows


class Runs:
    """The runs of one task, update and learning rate."""

    def __init__(self, task: Task, update: Update, multiplier: float) -> None:
        self.task, self.update = task, update
        self.algorithm = algorithm(ALGORITHMS[task.name])
        kinds = self.algorithm.kind, update.kind
        self.rate = multiplier * default_learning_rate(*kinds, entry().facts.hidden_size)
        self.rows, held_out = rows(named(task.name))
        self.halves = held_out[::2], held_out[1::2]

    def constant(self) -> dict[int, Scores]:
        """Return the scores of one run by its optimiser steps."""
        trainer = self._trainer("constant", COSINE_LENGTHS[-1])
        found, following = dict[int, Scores](), 2.0
        while not trainer.done:
            trainer.advance()
            if trainer.step >= following or trainer.done:
                with trainer.result():
                    found[trainer.step] = self._score(trainer)
                following = trainer.step * FACTOR
        return found

    def cosine(self) -> dict[int, Scores]:
        """Return the scores of runs of different lengths by their optimiser steps."""
        found = {}
        for epochs in COSINE_LENGTHS:
            trainer = self._trainer("cosine", epochs)
            while not trainer.done:
                trainer.advance()
            found[trainer.step] = self._score(trainer)
        return found

    def _trainer(self, schedule: Schedule, epochs: float) -> StageTrainer:
        base, learn = cache.base(entry()), objective(self.algorithm)
        render = renderer(base.tokenizer, self.task.spec)
        trainer = StageTrainer(
            applied=updates.apply(copy.deepcopy(base.model).eval(), self.update, SEED),
            objective=learn,
            examples=[example for row in self.rows for example in learn.examples(row, self.task.kind, render)],
            optimiser=Optimiser(learning_rate=self.rate, batch_size=BATCH, epochs=epochs, schedule=schedule),
            seed=SEED,
        )
        trainer.keep_reference()
        return trainer

    def _score(self, trainer: StageTrainer) -> Scores:
        one, other = (self._half(trainer, half) for half in self.halves)
        return one, other

    def _half(self, trainer: StageTrainer, held_out: list[Row]) -> float:
        spec = self.task.spec
        metrics = judge(trainer.model, cache.base(entry()).tokenizer, spec, held_out)
        return round(rung_score(metrics, spec.objective).rank_key[0], 5)


def record(work: tuple[str, str, float]) -> dict[str, Any]:
    """Return the line of one task, update and multiplier."""
    task, update, multiplier = replace(named(work[0]), grader=None), UPDATES[work[1]], work[2]
    line: dict[str, Any] = {"task": work[0], "update": work[1], "multiplier": multiplier}
    runs = Runs(task, update, multiplier)
    try:
        return line | {"constant": runs.constant(), "cosine": runs.cosine()}
    except TrialFailed as failure:
        return line | {"error": failure.message}


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text("utf-8").splitlines()] if FILE.exists() else []


def missing() -> Iterator[tuple[str, str, float]]:
    known = {(line["task"], line["update"], line["multiplier"]) for line in lines()}
    for multiplier in MULTIPLIERS:
        for update in UPDATES:
            for task in TASKS:
                if (task.name, update, multiplier) not in known:
                    yield task.name, update, multiplier


class Best(NamedTuple):
    """The length in steps that is best on one half of the held-out rows, with its score there and on the other half."""

    chosen_by: float
    steps: int
    score: float


def best(scores: dict[str, Scores]) -> Best:
    return min(Best(one, int(steps), other) for steps, (one, other) in scores.items())


def show() -> None:
    """Print the best length and its score under each schedule, for each design and for the best one of each task."""
    print(f"{'task':12} {'update':6} {'rate':>5}   constant: steps, score   cosine: steps, score")
    found: dict[str, list[tuple[Best, Best]]] = {}
    for line in lines():
        if "error" in line:
            print(f"{line['task']:12} {line['update']:6} {line['multiplier']:5g}   {line['error']}")
            continue
        pair = best(line["constant"]), best(line["cosine"])
        found.setdefault(line["task"], []).append(pair)
        print(f"{line['task']:12} {line['update']:6} {line['multiplier']:5g}   {_words(*pair)}")
    print("\nthe best update and rate of each task")
    for task, pairs in found.items():
        print(f"{task:12} {'':6} {'':5}   {_words(min(one for one, _ in pairs), min(other for _, other in pairs))}")
    better = [one.score < other.score for pairs in found.values() for one, other in pairs]
    print(f"\nconstant is better in {sum(better)} of {len(better)} designs")


def _words(one: Best, other: Best) -> str:
    return f"{one.steps:15} {one.score:8.4f} {other.steps:13} {other.score:8.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=["show", "record"], default="show")
    parser.add_argument("--workers", type=int, default=2, help="number of single-threaded processes (default: 2)")
    given = parser.parse_args()
    if given.action == "record":
        for task in TASKS:
            rows(task)  # download once, before the processes start
        with (
            multiprocessing.get_context("spawn").Pool(given.workers, begin) as pool,
            FILE.open("a", encoding="utf-8") as file,
        ):
            for line in pool.imap_unordered(record, list(missing())):
                file.write(json.dumps(line) + "\n")
                file.flush()
    show()


if __name__ == "__main__":
    main()
