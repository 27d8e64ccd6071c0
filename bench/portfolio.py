"""Choose the first designs of a search, the default learning rates and the surrogate's prior mean from the atlas.

`python -m bench.portfolio` reads the recorded curves, takes seconds and prints:

- the designs chosen greedily, so that the best of them gains most on average over the tasks;
- leave-one-task-out: what a portfolio chosen on the other tasks gains on each task, and the committed priors;
- the gain of each update at each multiple of its default learning rate, by task;
- the prior mean fitted on half of the tasks, and what it explains of the other half.

The gain of a design is its share of the improvement from the untuned model to the best design of its recipe.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from bench.atlas.table import Curve, Table, tables
from luthier.design import Design
from search.policy.coverage import edited
from search.policy.expectation import expected
from search.policy.features import Features, features
from search.policy.priors import priors
from search.policy.surrogate import normal_scores
from search.space.learning_rate import default_learning_rate

SIZE: Final = 4  # designs of a portfolio
EVERYWHERE: Final = ("full", "lora")  # updates that every table has
HALVES: Final = (("domain", "verifiable"), ("instruction", "preference"))
Gains = Mapping[str, Mapping[str, Mapping["Shape", float]]]  # by task, recipe and shape


class Shape(NamedTuple):
    """A design without its task: what a portfolio carries from one task to another."""

    update: str
    rate: float  # relative to the default
    rank: int | None
    batch_size: int
    epochs: float


def shape(design: Design, hidden_size: int) -> Shape:
    """Return the shape of a trained design."""
    first = design.stages[0]
    default = default_learning_rate(first.algorithm.kind, first.update.kind, hidden_size)
    return Shape(
        update=first.update.kind,
        rate=float(f"{first.optimiser.learning_rate / default:.2g}"),
        rank=getattr(first.update, "rank", None),
        batch_size=first.optimiser.batch_size,
        epochs=first.optimiser.epochs,
    )


def gains(table: Table) -> dict[str, dict[Shape, float]]:
    """Return the gain of each shape, by recipe. Edited designs, and recipes that gain nothing, are left out."""
    by_recipe: dict[str, list[Curve]] = defaultdict(list)
    for curve in table.curves.values():
        if not edited(curve.design) and len({stage.update for stage in curve.design.stages}) == 1:
            by_recipe[curve.design.recipe].append(curve)
    untuned, found = table.untuned.value, {}
    for recipe, curves in by_recipe.items():
        most = untuned - min(curve.value for curve in curves)
        if most > 0:
            hidden = table.task.space.models[0].hidden_size
            found[recipe] = {shape(curve.design, hidden): (untuned - curve.value) / most for curve in curves}
    return found


def worth(portfolio: Sequence[Shape], recipes: Mapping[str, Mapping[Shape, float]]) -> float:
    """Return the gain of the best design of the portfolio, as the mean over the recipes of a task."""
    return statistics.mean(max((of[one] for one in portfolio if one in of), default=0.0) for of in recipes.values())


def greedy(known: Gains, tasks: Collection[str], shapes: Sequence[Shape]) -> list[Shape]:
    """Return the portfolio of these tasks: each design added is the one that helps most beside those before it."""
    chosen: list[Shape] = []
    while len(chosen) < SIZE:
        best = max(
            (one for one in shapes if one not in chosen),
            key=lambda one: statistics.mean(worth([*chosen, one], known[task]) for task in tasks),
        )
        chosen.append(best)
    return chosen


def scored(table: Table) -> list[tuple[Features, float]]:
    """Return the features of each design with its normal score among the designs of its recipe."""
    by_recipe: dict[str, list[Curve]] = defaultdict(list)
    for curve in table.curves.values():
        by_recipe[curve.design.recipe].append(curve)
    found = []
    for curves in by_recipe.values():
        ordered = sorted(curves, key=lambda curve: curve.value)
        hidden = table.task.space.models[0].hidden_size
        described = [features(curve.design, hidden) for curve in ordered]
        found += list(zip(described, normal_scores(len(ordered)), strict=True))
    return found


def explained(table: Table, mean: Callable[[Features], float]) -> float:
    """Return the correlation of a mean function with the normal scores of a table."""
    pairs = scored(table)
    return float(np.corrcoef([mean(one) for one, _ in pairs], [score for _, score in pairs])[0, 1])


def fitted(chosen: Sequence[Table]) -> Callable[[Features], float]:
    """Return the least-squares fit of the terms of `expectation` to some tables."""
    pairs = [pair for table in chosen for pair in scored(table)]
    groups = sorted({one.names["update_group"] for one, _ in pairs})

    def terms(one: Features) -> list[float]:
        rate = one.numbers["learning_rate"]
        own = [float(one.names["update_group"] == group) for group in groups]
        shifted = [is_own * power for is_own in own for power in (1.0, rate, rate**2)]
        return [*shifted, one.numbers["epochs"], one.numbers["batch_size"]]

    weights = np.linalg.lstsq(np.array([terms(one) for one, _ in pairs]), np.array([s for _, s in pairs]), rcond=None)[
        0
    ]
    for index, group in enumerate(groups):
        level, slope, bend = weights[3 * index : 3 * index + 3]
        print(f"  {group:10} {level:+.2f} {slope:+.2f} x {bend:+.2f} x²   (x: power of four of the default rate)")
    print(f"  epochs ×3 {weights[-2]:+.2f}, batch ×8 {weights[-1]:+.2f}")
    return lambda one: float(np.dot(terms(one), weights))


def rates(known: Gains) -> None:
    """Print the best gain of each update at each multiple of its default rate, as the mean over the recipes."""
    for task, recipes in known.items():
        for update in sorted({one.update for of in recipes.values() for one in of}):
            multiples = sorted({one.rate for of in recipes.values() for one in of if one.update == update})
            best = {
                rate: statistics.mean(
                    max(
                        (gain for one, gain in of.items() if one.update == update and one.rate == rate),
                        default=math.nan,
                    )
                    for of in recipes.values()
                )
                for rate in multiples
            }
            print(f"  {task:12} {update:11}", " ".join(f"×{rate:g} {gain:.2f}" for rate, gain in best.items()))


def main() -> int:
    known = {table.task.name: gains(table) for table in tables()}
    first = next(iter(next(iter(known.values())).values()))
    everywhere = [one for one in first if one.update in EVERYWHERE]
    print(f"Portfolio of all {len(known)} tasks:")
    for one in greedy(known, list(known), everywhere):
        print(" ", one)
    print("Leave one task out: gain on the task of the portfolio of the others, after 1 to 4 designs:")
    for task in known:
        chosen = greedy(known, [other for other in known if other != task], everywhere)
        print(f"  {task:12}", " ".join(f"{worth(chosen[:count], known[task]):.2f}" for count in range(1, SIZE + 1)))
    print(f"The committed priors, the first {SIZE} of each task:")
    for table in tables():
        hidden = table.task.space.models[0].hidden_size
        first_priors = [shape(design, hidden) for design in priors(table.task.space)[:SIZE]]
        print(f"  {table.task.name:12} {worth(first_priors, known[table.task.name]):.2f}")
    print("Gain by learning rate:")
    rates(known)
    by_name = {table.task.name: table for table in tables()}
    for half, other in (HALVES, HALVES[::-1]):
        print(f"Prior mean fitted on {', '.join(half)}:")
        mean = fitted([by_name[name] for name in half])
        for name in other:
            found = explained(by_name[name], mean), explained(by_name[name], expected)
            print(f"  {name:12} correlation with the scores {found[0]:.2f}; of the committed constants {found[1]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
