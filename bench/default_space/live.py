"""Search tasks without pins, live, and compare: `python -m bench.default_space.live`.

The comparison is with what an engineer would have run. Each search trains on the same rows, and the same judge scores
it. A search is charged for the scores that it uses, and not for the test rows. What counts is the share of the
achievable gain on the test rows: from the untuned base to the best that is known of the task. A line is appended to
`bench/results/default_space/live.jsonl` for each task, search and seed; those in the file are skipped. `--show` prints
the comparison.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from bench.default_space.record import FOLDER, lines
from bench.default_space.tasks import TASKS, Task, base, named
from bench.default_space.training import Training
from bench.replay import Decision, Scored, replay
from bench.searchers import Luthier
from luthier.design import Design, Optimiser, Stage
from luthier.task import DataKind
from luthier.updates import Full, Lora, Update
from search.policy.history import Past
from search.policy.scheduler import Try
from search.space.learning_rate import significant
from search.space.space import algorithm

FILE: Final = FOLDER / "live.jsonl"
TRIALS: Final = 24
# The eight runs of an engineer: LoRA at five rates, the best of them twice as long, and full fine-tuning at a tenth of
# the two best rates (the rule of Thinking Machines' "LoRA without regret").
LORA_RATES: Final = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
EPOCHS, LORA_RANK, BATCH = 3.0, 16, 8
FULL_SHARE: Final = 0.1
ALGORITHMS: Final = {DataKind.TEXT: "clm", DataKind.PAIRS: "sft", DataKind.PREFERENCE: "dpo"}


class Live:
    """Designs of a task, trained on request. Each is trained once, whatever search asks for it."""

    def __init__(self, task: Task, seed: int) -> None:
        self._task, self._seed = task, seed
        self._trainings: dict[str, Training] = {}

    def curve(self, design: Design) -> Training:
        digest = design.digest()
        if digest not in self._trainings:
            self._trainings[digest] = Training(self._task, design, seed=self._seed)
        return self._trainings[digest]

    def close(self) -> None:
        for training in self._trainings.values():
            training.give_up()


class Engineer:
    """Eight runs, each to the end under a cosine schedule, of the algorithm that most would use for such rows."""

    def __init__(self, task: Task) -> None:
        self._kind = ALGORITHMS[task.kind]
        lower = 0.1 if self._kind == "dpo" else 1.0  # preference optimisation is run at a tenth of the rates
        self._rates = [significant(rate * lower) for rate in LORA_RATES]

    def next(self, history: Sequence[Past]) -> Try | None:
        done = len(history)
        if done < len(self._rates):
            return self._run(Lora(rank=LORA_RANK), self._rates[done], EPOCHS)
        best = sorted(history[: len(self._rates)], key=lambda past: past.value if past.value is not None else math.inf)
        rates = [past.design.stages[0].optimiser.learning_rate for past in best]
        match done - len(self._rates):
            case 0:
                return self._run(Lora(rank=LORA_RANK), rates[0], 2 * EPOCHS)
            case 1 | 2 as turn:
                return self._run(Full(), significant(rates[turn - 1] * FULL_SHARE), EPOCHS)
            case _:
                return None

    def _run(self, update: Update, rate: float, epochs: float) -> Try:
        optimiser = Optimiser(learning_rate=rate, batch_size=BATCH, epochs=epochs)
        stage = Stage(algorithm=algorithm(self._kind), update=update, optimiser=optimiser)
        design = Design.model_validate({"architecture": {"base": base().name}, "stages": [stage]})
        return Try(design=design, origin="proposed", goal=None)

    def at_rung(self, history: Sequence[Past], number: int) -> Decision:
        return "continue"

    def completed(self, past: Past) -> None:
        pass


ENGINEER: Final = "engineer, eight runs"
SEARCHES: Final[dict[str, Callable[[Task, int], Any]]] = {
    "Luthier": lambda task, seed: Luthier(task.space, seed, TRIALS, early_finish=False),
    "Luthier, sampler tpe": lambda task, seed: Luthier(task.space, seed, TRIALS, early_finish=False, sampler="tpe"),
    ENGINEER: lambda task, seed: Engineer(task),
}


def search(task: Task, name: str, seed: int, budget: float) -> dict[str, Any]:
    """Run one search and return its line: after how many CPU seconds its best design changed, and the test scores."""
    live, history = Live(task, seed), list[Past]()
    found: list[dict[str, Any]] = []
    best = math.inf
    for scored in replay(live, SEARCHES[name](task, seed), 1, budget, history):
        if scored.design.stages and scored.value < best:
            best = scored.value
            found.append(_found(live, scored))
    spent = sum(past.device_seconds for past in history)
    live.close()
    line = {"task": task.name, "search": name, "seed": seed, "spent": round(spent, 1), "designs": len(history)}
    return line | {"found": found}


def _found(live: Live, scored: Scored) -> dict[str, Any]:
    training = live.curve(scored.design)
    return {
        "spent": round(scored.spent, 1),
        "validation": round(scored.value, 6),
        "test": round(training.test_score(), 6),
        "design": scored.design.summary(),
        "lengths": [one.epochs for one in training.lengths],
    }


def results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text("utf-8").splitlines()] if FILE.exists() else []


def best_known(task: str) -> float:
    """Return the best test score of a task's designs, recorded or found by a search; chosen on validation rows."""
    recorded = [(line["validation"], line["test"]) for line in lines(task) if "validation" in line]
    live = [(one["validation"], one["test"]) for line in results() if line["task"] == task for one in line["found"]]
    return min(recorded + live)[1]


def share_of_gain(task: str, test: float) -> float:
    """Return which share of the achievable gain a test score has."""
    untuned = float(lines(task)[0]["test"])
    return (untuned - test) / (untuned - best_known(task))


def show() -> None:
    """Print each search's share of the gain at its end and when the engineer's runs end, and its seconds to 95 %."""
    for task in TASKS:
        of_task = [line for line in results() if line["task"] == task.name and line["found"]]
        of_engineer = [line["spent"] for line in of_task if line["search"] == ENGINEER]
        for name in SEARCHES:
            runs = [line for line in of_task if line["search"] == name]
            if not runs or not of_engineer:
                continue
            equal = statistics.median(of_engineer)
            ends = [share_of_gain(task.name, line["found"][-1]["test"]) for line in runs]
            then = [_share_after(task.name, line, equal) for line in runs]
            reached = statistics.median(_seconds_to(task.name, line, 0.95) for line in runs)
            print(
                f"{task.name:12} {name:22} {len(runs)} seeds: gain {min(ends):.0%} to {max(ends):.0%}, median "
                f"{statistics.median(ends):.0%}, in {statistics.median(line['spent'] for line in runs):.0f} s; median "
                f"after {equal:.0f} s: {statistics.median(then):.0%}; to 95 %: {reached:.0f} s"
            )


def _share_after(task: str, line: dict[str, Any], seconds: float) -> float:
    """Return which share of the gain a search had after so many seconds: 0, the untuned base, if it had nothing."""
    found = [one["test"] for one in line["found"] if one["spent"] <= seconds]
    return share_of_gain(task, found[-1]) if found else 0.0


def _seconds_to(task: str, line: dict[str, Any], share: float) -> float:
    return next((one["spent"] for one in line["found"] if share_of_gain(task, one["test"]) >= share), math.inf)


def _missing(names: Sequence[str], tasks: Sequence[str], seeds: int) -> Iterator[tuple[str, str, int]]:
    known = {(line["task"], line["search"], line["seed"]) for line in results()}
    for seed in range(seeds):
        for task in tasks:
            for name in names:
                if (task, name, seed) not in known:
                    yield task, name, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="print the comparison")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each search (default: 5)")
    parser.add_argument("--budget", type=float, default=math.inf, help="CPU seconds of each search (default: no limit)")
    parser.add_argument("--only", choices=[task.name for task in TASKS], nargs="+", default=[t.name for t in TASKS])
    parser.add_argument("--searches", choices=list(SEARCHES), nargs="+", default=list(SEARCHES))
    given = parser.parse_args()
    if given.show:
        show()
        return
    for task, name, seed in _missing(given.searches, given.only, given.seeds):
        began = time.monotonic()
        line = search(named(task), name, seed, given.budget)
        with FILE.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        last = line["found"][-1] if line["found"] else None
        print(f"{task}, {name}, seed {seed}: {time.monotonic() - began:.0f} s; {last}", flush=True)


if __name__ == "__main__":
    main()
