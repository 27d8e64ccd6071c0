"""Measure the prediction error of the cost model on held-out trials: `nice python -m bench.cost`.

Trials of random designs are trained, judged and exported by the workers' code, one after the other in this process.
There are two evaluations: two-fold cross-validation over designs, and the harder leave-one-recipe-out, where each
recipe's trials are predicted from those of all others. Times are CPU seconds (`time.process_time`), which other
processes on the machine disturb less than wall-clock time.

The results are written to bench/results/cost.json. `--again` reads the trials from there and only refits the model.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import psutil
import torch
import transformers

from bench.trials import Draw, Run, Task, run
from luthier.design import Design
from luthier.task import DataKind, TextSimilarity
from search.cost.estimate import Calibration, Estimate, Seen, calibrate, estimate, token_ratio
from search.cost.workload import workload
from service.jobs.costs import HEADROOM
from tests import data_samples

RESULTS: Final = Path(__file__).parent / "results" / "cost.json"
HELD_OUT: Final = 16
MIB: Final = 2**20
# Task, recipe and weight updates of the designs; all other axes are random.
WANTED: Final = (
    ("pairs", "sft", "full lora top_layers dora rslora pissa layernorm lora_plus vera ia3 oft adalora prompt prefix"),
    ("long", "sft", "full lora dora top_layers pissa ia3 lora full oft prompt"),
    ("text", "clm", "full lora top_layers dora vera lora_plus adalora layernorm prefix oft"),
    ("preference", "dpo", "full lora dora top_layers rslora oft"),
    ("preference", "orpo", "full lora ia3"),
    ("preference", "simpo", "lora top_layers full"),
    ("preference", "sft+dpo", "lora full dora"),
    ("preference", "reward_model+rloo", "lora full"),
    ("unpaired", "kto", "full lora top_layers dora"),
    ("graded", "grpo", "full lora dora top_layers layernorm"),
    ("graded", "rloo", "lora full pissa"),
    ("graded", "raft", "lora full"),
    ("graded", "sft+grpo", "lora full"),
    ("encoder", "mlm", "full lora top_layers bitfit dora layernorm full lora"),
)


def _long(count: int) -> list[dict[str, Any]]:
    """Pairs with answers of several sentences."""
    texts = [row["text"] for row in data_samples.text(count)]
    return [
        {"prompt": pair["prompt"], "completion": text}
        for pair, text in zip(data_samples.pairs(count), texts, strict=True)
    ]


@cache
def tasks() -> dict[str, Task]:
    """Return the tasks by name."""

    def task(name: str, kind: DataKind, rows: Sequence[dict[str, Any]], **settings: Any) -> Task:
        return Task(name=name, kind=kind, train=tuple(rows[HELD_OUT:]), held_out=tuple(rows[:HELD_OUT]), **settings)

    grader = TextSimilarity()
    found = [
        task("pairs", DataKind.PAIRS, data_samples.pairs(144), grader=grader),
        task("long", DataKind.PAIRS, _long(88), grader=grader, max_new_tokens=32),
        task("text", DataKind.TEXT, data_samples.text(96)),
        task("preference", DataKind.PREFERENCE, data_samples.preference(88)),
        task("unpaired", DataKind.UNPAIRED, data_samples.unpaired(88)),
        task("graded", DataKind.PAIRS, data_samples.pairs(40), grader=grader, max_new_tokens=8),
        task("encoder", DataKind.TEXT, data_samples.text(64), model="tiny-encoder"),
    ]
    return {one.name: one for one in found}


def plan() -> list[tuple[str, Design]]:
    """Return the name of the task and the design of each trial; always the same ones."""
    found = []
    for name, recipe, updates in WANTED:
        for number, update in enumerate(updates.split()):
            draw = Draw(f"{name}/{recipe}/{update}/{number}", {"recipe": recipe, "update": update})
            found.append((name, tasks()[name].space.sample(draw)))
    return found


class Trial:
    """A finished trial, as the service sees it."""

    def __init__(self, task: str, design: Design, took: Run) -> None:
        self.task, self.design, self.took = task, design, took
        self.seen = self._seen(1.0)

    @property
    def recipe(self) -> str:
        return self.design.recipe

    def _seen(self, ratio: float) -> Seen:
        task = tasks()[self.task]
        held_out = len(task.held_out)
        job = workload(
            task.profile, task.judge("", ""), rows=len(task.train), validation=held_out, test=held_out, ratio=ratio
        )
        return Seen(
            design=self.design, facts=task.entry.facts, job=job, usage=self.took.usage, seconds=self.took.seconds
        )

    def at(self, ratio: float) -> Seen:
        """The trial, with `ratio` tokens for each token that the dataset profile counts."""
        return self._seen(ratio)


class Fitted:
    """The cost model, fitted on these trials."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        names = {trial.task for trial in trials}
        self.ratios = {name: token_ratio(trial.seen for trial in trials if trial.task == name) for name in names}
        self.prices: Calibration = calibrate("cpu", [trial.at(self.ratios[trial.task]) for trial in trials])

    def __call__(self, trial: Trial) -> Estimate:
        seen = trial.at(self.ratios.get(trial.task, 1.0))
        return estimate(seen.facts, seen.design, seen.job, self.prices)


Errors = dict[str, list[float]]


def errors(fitted: Fitted, trials: Sequence[Trial], process: float) -> Errors:
    """Return the relative errors of each trial. `process`: memory of the process before any training, in bytes."""
    found: Errors = {"memory": [], "memory_above_process": [], "seconds": [], "train_seconds": []}
    for trial in trials:
        it, usage = fitted(trial), trial.took.usage
        training = it.seconds_parts["training"] + it.seconds_parts["rollouts"]
        pairs = {
            "memory": (it.memory_bytes, usage.peak_memory_bytes),
            "memory_above_process": (it.memory_bytes - process, usage.peak_memory_bytes - process),
            "seconds": (it.seconds, trial.took.seconds),
            "train_seconds": (training, usage.train_seconds),
        }
        for name, (expected, real) in pairs.items():
            found[name].append(abs(expected / real - 1))
    return found


def joined(parts: Sequence[Errors]) -> Errors:
    return {name: [error for part in parts for error in part[name]] for name in parts[0]}


def summary(found: Errors) -> dict[str, dict[str, float]]:
    return {
        name: {
            "median": round(statistics.median(values), 4),
            "p90": round(statistics.quantiles(values, n=10)[-1], 4),
        }
        for name, values in found.items()
    }


def evaluate(trials: Sequence[Trial], process: float) -> dict[str, Any]:
    """Return the errors on trials that the model was not fitted on."""
    order = random.Random(0).sample(list(trials), len(trials))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    by_design = joined([errors(Fitted(halves[side]), halves[1 - side], process) for side in (0, 1)])
    recipes = sorted({trial.recipe for trial in trials})
    groups = {p: ([t for t in trials if t.recipe != p], [t for t in trials if t.recipe == p]) for p in recipes}
    by_recipe = {p: errors(Fitted(others), own, process) for p, (others, own) in groups.items()}
    return {
        "by_design": summary(by_design),
        "by_program": summary(joined(list(by_recipe.values()))),
        "each_program": {
            p: {name: round(statistics.median(found[name]), 4) for name in ("memory", "seconds")}
            for p, found in by_recipe.items()
        },
        "defaults": summary(errors(Fitted([]), trials, process)),
        "gate": gate(trials),
    }


def gate(trials: Sequence[Trial]) -> dict[str, int]:
    """Count the trials that the memory check launches, and those of them that run out of memory.

    The model is fitted on one half and checks the other half. Each trial's peak memory in turn is the device's limit.
    """
    order = random.Random(0).sample(list(trials), len(trials))
    launched = out_of_memory = 0
    for own, others in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        fitted = Fitted(others)
        expected = [fitted(trial).memory_bytes for trial in own]
        for limit in sorted(trial.took.usage.peak_memory_bytes for trial in own):
            started = [t for t, bytes_ in zip(own, expected, strict=True) if bytes_ <= HEADROOM * limit]
            launched += len(started)
            out_of_memory += sum(trial.took.usage.peak_memory_bytes > limit for trial in started)
    return {"launched": launched, "out_of_memory": out_of_memory}


def measure() -> tuple[list[Trial], float]:
    """Run the plan. Return the trials, and the memory of the process before the first one, in bytes."""
    trials: list[Trial] = []
    for name in tasks():
        run(tasks()[name], tasks()[name].plain())  # fill the caches, as in a worker that has run a trial
    process = float(psutil.Process().memory_info().rss)
    for number, (name, design) in enumerate(plan()):
        trial = Trial(name, design, run(tasks()[name], design))
        trials.append(trial)
        usage = trial.took.usage
        print(
            f"{number:3} {name:10} {design.summary()[:80]:80} {trial.took.seconds:6.2f} s "
            f"{usage.peak_memory_bytes / MIB:6.0f} MiB",
            flush=True,
        )
    return trials, process


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the prediction error of the cost model on held-out trials.")
    parser.add_argument(
        "--again", action="store_true", help="refit the model on the recorded trials, without training any"
    )
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    if parser.parse_args().again:
        record = json.loads(RESULTS.read_text(encoding="utf-8"))
        trials = [
            Trial(
                each["task"],
                Design.model_validate(each["design"]),
                Run.of(each["seconds"], each["usage"]),
            )
            for each in record["trials"]
        ]
        process, cpu_seconds = record["process_bytes"], record["cpu_seconds"]
    else:
        trials, process = measure()
        cpu_seconds = round(time.process_time())
    found = evaluate(trials, process)
    record = {
        "machine": "2-core CPU",
        "command": "python -m bench.cost",
        "cpu_seconds": cpu_seconds,
        "process_bytes": process,
        "count": len(trials),
        **found,
        "trials": [
            {
                "task": trial.task,
                "summary": trial.design.summary(),
                "seconds": round(trial.took.seconds, 3),
                "usage": trial.took.usage.model_dump(),
                "design": trial.design.model_dump(mode="json"),
            }
            for trial in trials
        ],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in record.items() if name != "trials"}, indent=1))
    halves = found["by_design"]
    return 0 if halves["memory"]["median"] <= 0.10 and halves["seconds"]["median"] <= 0.20 else 1


if __name__ == "__main__":
    sys.exit(main())
