"""Compare searches on the atlas: `python -m bench.search`. Minutes on one core, nothing is trained.

Prints, for each task, the device-seconds until a design within 1% of the best one in the table has been trained to its
end, with standard errors over the seeds, and how far from the best each search is after shares of the exhaustive cost.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import optuna
from optuna.exceptions import ExperimentalWarning

from bench.atlas.table import Table, tables
from bench.replay import Scored, replay
from bench.searchers import SEARCHERS

WITHIN: Final = 0.01
SHARES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", ExperimentalWarning)  # of TPE's `group` and of HyperbandPruner


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One search from one seed."""

    seconds: float  # until within 1% of the best, or of the whole search where it never came so near
    reached: bool
    regret: tuple[float, ...]  # relative, at the shares


def search(table: Table, name: str, seed: int, workers: int) -> Outcome:
    """Replay until the best design of the table is found, or the search ends."""
    searcher = SEARCHERS[name](table, seed)
    seen: list[Scored] = []
    for scored in replay(table, searcher, workers):
        if scored.design.stages:
            seen.append(scored)
        if scored.value <= table.best.value or scored.spent > table.cost:
            break
    near = next((scored.spent for scored in seen if table.near(scored.value, WITHIN)), None)
    return Outcome(
        seconds=seen[-1].spent if near is None else near,
        reached=near is not None,
        regret=tuple(_regret(table, seen, share * table.cost) for share in SHARES),
    )


def _regret(table: Table, seen: Sequence[Scored], budget: float) -> float:
    """Of the best design trained to its end within the budget; before there is one, of the untuned model."""
    best = min((scored.value for scored in seen if scored.spent <= budget), default=table.untuned.value)
    return (best - table.best.value) / abs(table.best.value)


def _with_error(values: Sequence[float]) -> str:
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.1f} ± {error:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16, help="seeds of each search (default: 16)")
    parser.add_argument("--workers", type=int, default=2, help="workers that share a search (default: 2)")
    parser.add_argument("--only", help="searches whose name holds this")
    parser.add_argument("--task", help="replay on this task alone; the others are remembered all the same")
    given = parser.parse_args()
    names = [name for name in SEARCHERS if given.only is None or given.only in name]
    for table in tables():
        if given.task not in (None, table.task.name):
            continue
        print(
            f"\n{table.task.name}: {len(table.curves)} designs, {table.cost:.0f} CPU-seconds in all, "
            f"best {table.best.value:.4f} ({table.best.design.summary()}), untuned {table.untuned.value:.4f}, "
            f"{sum(table.near(curve.value, WITHIN) for curve in table.curves.values())} within 1%"
        )
        print(
            f"{'':30}{'device-s to 1%':>18}{'ratio':>8}{'never':>7}   regret after "
            + "".join(f"{s:>8.0%}" for s in SHARES)
        )
        first = None
        for name in names:
            outcomes = [search(table, name, seed, given.workers) for seed in range(given.seeds)]
            seconds = [outcome.seconds for outcome in outcomes]
            first = first or statistics.mean(seconds)
            missed = sum(not outcome.reached for outcome in outcomes)
            regrets = [statistics.mean(outcome.regret[i] for outcome in outcomes) for i in range(len(SHARES))]
            print(
                f"{name:30}{_with_error(seconds):>18}{statistics.mean(seconds) / first:>8.1f}{missed:>7}"
                f"{'':16}" + "".join(f"{regret:>8.2%}" for regret in regrets),
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
