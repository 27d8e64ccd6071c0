"""Compare search algorithms on the recorded learning curves of the atlas: `python -m bench.search`.

Takes minutes on one core; nothing is trained. For each task and search it prints:

- the device-seconds until a design within 1% of the best was trained to the end, with the standard error over seeds;
- the number of seeds that never found such a design;
- the relative regret after 1%, 2%, 5% and 10% of the cost of training every design.

The results are written to bench/results/search.json; `--task` and `--only` update a part of it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.exceptions import ExperimentalWarning

from bench.atlas.table import Table, tables
from bench.replay import Scored, replay
from bench.searchers import SEARCHERS, Luthier, known
from search.policy.history import Past

WITHIN: Final = 0.01
SHARES: Final = (0.01, 0.02, 0.05, 0.1)
JOBS: Final = (24, 60)  # numbers of trials of the jobs that early finish is measured on
BUDGETS: Final = (10.0, 20.0, 40.0, 80.0)  # device-seconds of the jobs for `--budgets`
RESULTS: Final = Path(__file__).parent / "results" / "search.json"
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", ExperimentalWarning)  # from TPE's `group` and HyperbandPruner


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One search with one seed."""

    seconds: float  # until within 1% of the best, or of the whole search if it never was
    reached: bool
    regret: tuple[float, ...]  # relative, after each of SHARES


def search(table: Table, name: str, seed: int, workers: int) -> Outcome:
    """Replay a search until its outcome is known, or the search ends."""
    searcher = SEARCHERS[name](table, seed)
    seen: list[Scored] = []
    for scored in replay(table, searcher, workers):
        if scored.design.stages:
            seen.append(scored)
        near = any(table.near(one.value, WITHIN) for one in seen)
        if scored.spent > (SHARES[-1] if near else 1.0) * table.cost:
            break
    reached = next((scored.spent for scored in seen if table.near(scored.value, WITHIN)), None)
    return Outcome(
        seconds=seen[-1].spent if reached is None else reached,
        reached=reached is not None,
        regret=tuple(_regret(table, seen, share * table.cost) for share in SHARES),
    )


def _regret(table: Table, seen: Sequence[Scored], budget: float) -> float:
    """Relative regret of the best design trained to the end within the budget, or of the untuned model if none was."""
    best = min((scored.value for scored in seen if scored.spent <= budget), default=table.untuned.value)
    return (best - table.best.value) / abs(table.best.value)


def early(table: Table, seed: int, workers: int, trials: int) -> dict[str, tuple[float, float]]:
    """Return device-seconds and regret of a whole job of `trials` designs, with and without early finish."""
    found: dict[str, tuple[float, float]] = {}
    for name in ("early", "full"):
        recorded = partial(known, table)
        searcher = Luthier(table.task.space, seed, trials, early_finish=name == "early", recorded=recorded)
        seen = [scored for scored in replay(table, searcher, workers) if scored.design.stages]
        found[name] = seen[-1].spent, _regret(table, seen, math.inf)
    return found


def compare(table: Table, name: str, seeds: int, workers: int) -> dict[str, Any]:
    """Return the statistics of a search over several seeds."""
    outcomes = [search(table, name, seed, workers) for seed in range(seeds)]
    seconds = [outcome.seconds for outcome in outcomes]
    return {
        "seeds": seeds,
        "seconds": round(statistics.mean(seconds), 2),
        "error": round(statistics.stdev(seconds) / math.sqrt(seeds), 2),
        "never": sum(not outcome.reached for outcome in outcomes),
        "regret": {
            f"{share:.0%}": round(statistics.mean(outcome.regret[i] for outcome in outcomes), 5)
            for i, share in enumerate(SHARES)
        },
    }


def compare_early(table: Table, seeds: int, workers: int, trials: int) -> dict[str, Any]:
    """Return the statistics of early finish over several seeds."""
    found = [early(table, seed, workers, trials) for seed in range(seeds)]
    return {
        "seeds": seeds,
        "ended_early": sum(one["early"][0] < one["full"][0] for one in found),
        "seconds": {name: round(statistics.mean(one[name][0] for one in found), 2) for name in found[0]},
        "regret": {name: round(statistics.mean(one[name][1] for one in found), 5) for name in found[0]},
    }


def cancelled(table: Table, seed: int, workers: int, budget: float) -> tuple[int, int]:
    """Return how many trials a job of `budget` device-seconds starts, and how many still run when these are spent."""
    history: list[Past] = []
    searcher = Luthier(table.task.space, seed, JOBS[0], budget=budget, recorded=partial(known, table))
    for _ in replay(table, searcher, workers, budget, history):
        pass
    return len(history), sum(past.open for past in history)


def compare_cancelled(table: Table, seeds: int, workers: int, budget: float) -> dict[str, int]:
    """Return the total numbers of started and cancelled trials over several seeds."""
    found = [cancelled(table, seed, workers, budget) for seed in range(seeds)]
    return {"seeds": seeds, "begun": sum(begun for begun, _ in found), "cut_off": sum(running for _, running in found)}


def record(table: Table, part: str, name: str, found: dict[str, Any]) -> None:
    """Add one result to the results file, or replace it."""
    written = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    of_task = written.setdefault(table.task.name, {})
    of_task |= {
        "designs": len(table.curves),
        "failed": table.diverged,
        "exhaustive_seconds": round(table.cost, 1),
        "best": table.best.value,
        "untuned": table.untuned.value,
        "within_1%": sum(table.near(curve.value, WITHIN) for curve in table.curves.values()),
    }
    of_task.setdefault(part, {})[name] = found
    RESULTS.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def report(table: Table, part: str, name: str, found: dict[str, Any]) -> None:
    """Write one result and print it."""
    record(table, part, name, found)
    print(f"{name}: {json.dumps(found)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16, help="number of seeds of each search (default: 16)")
    parser.add_argument("--workers", type=int, default=2, help="number of parallel workers of a search (default: 2)")
    parser.add_argument("--only", help="run only the searches whose name contains this text")
    parser.add_argument("--task", help="run only on this task")
    parser.add_argument("--early", action="store_true", help="measure early finish instead")
    parser.add_argument(
        "--budgets", action="store_true", help="count the trials cancelled by device-second budgets instead"
    )
    given = parser.parse_args()
    chosen = [table for table in tables() if given.task in (None, table.task.name)]
    for table in chosen:
        print(
            f"\n{table.task.name}: {len(table.curves)} designs, {table.diverged} failed, {table.cost:.0f} CPU seconds "
            f"in all, best {table.best.value:.4f} ({table.best.design.summary()}), untuned {table.untuned.value:.4f}, "
            f"{sum(table.near(curve.value, WITHIN) for curve in table.curves.values())} within 1%"
        )
        if given.early:
            for trials in JOBS:
                found = compare_early(table, given.seeds, given.workers, trials)
                report(table, "early_finish", f"{trials} trials", found)
            continue
        if given.budgets:
            for budget in BUDGETS:
                report(
                    table,
                    "budgets",
                    f"{budget:g} device-seconds",
                    compare_cancelled(table, given.seeds, given.workers, budget),
                )
            continue
        print(f"{'':30}{'device-s to 1%':>18}{'never':>7}   regret after " + "".join(f"{s:>8.0%}" for s in SHARES))
        for name in SEARCHERS:
            if given.only not in (None, name) and given.only not in name:
                continue
            found = compare(table, name, given.seeds, given.workers)
            record(table, "searches", name, found)
            print(
                f"{name:30}{found['seconds']:>10.1f} ± {found['error']:<5.1f}{found['never']:>7}{'':16}"
                + "".join(f"{regret:>8.2%}" for regret in found["regret"].values()),
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
