"""Train designs of the default space and record their whole curves: `python -m bench.default_space.record`.

Each design is a line of `bench/results/default_space/<task>.jsonl`: its values by axis, its score at each rung and
moment, the scores on validation and test rows at its best moment, and the CPU seconds up to each. Lower scores are
better. The first line is the untuned base.

Half of the designs are drawn at random. The others are neighbours of the best designs so far, so that the optimum lies
inside the record. Recording goes on until it is stopped, or until each task has `--designs` designs. A training that
has taken LONGEST CPU seconds ends with the result of its best moment. Any number of processes may record at once.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.default_space.tasks import TASKS, Task, base, named
from bench.default_space.training import Training
from luthier.design import Design
from search.policy.coverage import edited
from search.space.samplers import Varied

FOLDER: Final = Path(__file__).parents[1] / "results" / "default_space"
LEADERS, LEADERS_SHARE = 12, 0.5  # of the designs, neighbours of so many of the best
EDITED_SHARE: Final = 1 / 8
LONGEST: Final = 90.0
DIGITS: Final = 6


def record(name: str, design: Design) -> dict[str, Any]:
    """Train one design and return its line."""
    task = named(name)
    training = Training(task, design, longest=LONGEST)
    at = 0
    while not training.ends_at(at):
        at += 1
    line: dict[str, Any] = {"answers": task.space.encode(design) if design.stages else {}}
    if training.error:
        return line | {"error": training.error, "costs": _rounded(training.costs)}
    usage = training.meter.usage()
    return line | {
        "lengths": [_rounded((one.steps, one.epochs, one.trained)) for one in training.lengths],
        "rungs": [_rounded((score.value, *score.rank_key)) for score in training.scores[:-1]],
        "moments": [_rounded(moment) for moment in training.moments],
        "validation": round(training.scores[-1].value, DIGITS),
        "test": round(training.test_score(), DIGITS),
        "costs": _rounded(training.costs),
        "trained": round(usage.train_seconds, 3),
        "judged": round(usage.judge_seconds, 3),
    }


def _rounded(numbers: Sequence[float]) -> list[float]:
    return [round(number, DIGITS) for number in numbers]


def lines(name: str) -> list[dict[str, Any]]:
    """Return the recorded designs of a task, the untuned base first."""
    file = FOLDER / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def following(task: Task, known: Sequence[dict[str, Any]], draw: random.Random) -> Design:
    """Return a design to record next: one at random, or a neighbour of a leader."""
    trained = [line for line in known if line["answers"] and "error" not in line]
    leaders = sorted(trained, key=lambda line: float(line["validation"]))[:LEADERS]
    space = task.space
    while True:
        near = len(trained) > LEADERS and draw.random() < LEADERS_SHARE
        design = space.sample(Varied(draw, draw.choice(leaders)["answers"] if near else {}))
        if not edited(design) or draw.random() < EDITED_SHARE:
            return design


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--designs", type=int, default=300, help="of each task (default: 300)")
    parser.add_argument("--only", choices=[task.name for task in TASKS], nargs="+", help="record only these tasks")
    given = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    tasks = [task for task in TASKS if given.only is None or task.name in given.only]
    draw, began, done = random.Random(time.time_ns()), time.monotonic(), 0
    while True:
        known = {task.name: lines(task.name) for task in tasks}
        task = min(tasks, key=lambda task: len(known[task.name]))
        if len(known[task.name]) > given.designs:
            return
        untuned = Design.model_validate({"architecture": {"base": base().name}})
        design = following(task, known[task.name], draw) if known[task.name] else untuned
        line = record(task.name, design)
        with (FOLDER / f"{task.name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        done += 1
        each = (time.monotonic() - began) / done
        print(f"{done} designs, {each:.0f} s each; {task.name}: {design.summary()}", flush=True)


if __name__ == "__main__":
    main()
