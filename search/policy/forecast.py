"""Foretell what a budget buys before a search starts: the scheduler's rules, applied to an average design."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.trial import RUNGS
from search.policy.asha import ETA
from search.policy.scheduler import BASELINES, FINISHING_SHARE, REPEATS_SHARE, Plan


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """How many designs are tried besides the baselines, trained to the end, and repeated with other seeds."""

    designs: int
    finished: int
    repeats: int
    rounds: int  # repeats that each finalist and the default gets
    device_seconds: float


def forecast(
    plan: Plan,
    *,
    untuned: float,
    full: float,
    budget: float | None,
    rungs: Sequence[float] = RUNGS,
    default_pauses: bool = True,
) -> Forecast:
    """Return what a budget in device-seconds buys; None: no limit.

    `untuned`: device-seconds to score the untuned base. `full`: those of a full training run of an average design.
    `rungs`: the shares of such a run at which it is compared with others. `default_pauses`: whether the default is also
    compared there, and trained to its end last.
    """
    searched = max(0, plan.trials - len(BASELINES))
    finalists = min(plan.finalists, searched)
    shares = (1.0,) if searched == finalists else (*rungs, 1.0)
    costs = [full * (share - before) for share, before in zip(shares, (0.0, *shares), strict=False)]
    begun = costs[0] if default_pauses else full  # of the default
    left = (math.inf if budget is None else budget) - untuned - begun
    most_to_finish = FINISHING_SHARE * (left + begun)
    wanted = plan.confirmations * (finalists + 1)
    reached = [0] * len(shares)  # how many designs reached each share
    spent = 0.0

    def climbs(level: int) -> bool:
        """Whether a design is promoted to this level next: one of ETA of those that reached the level below."""
        return level > 0 and reached[level] < reached[level - 1] // ETA and costs[level] <= left

    while reached[0] < searched:
        level = next((level for level in reversed(range(len(shares))) if climbs(level)), 0)
        kept = 0.0 if reached[0] < finalists else min(wanted * full, REPEATS_SHARE * (spent + left))
        finishing = full - begun + (0.0 if reached[-1] else full)
        if level == 0 and left < costs[0] + min(finishing, most_to_finish) + kept:
            break
        reached[level] += 1
        spent, left = spent + costs[level], left - costs[level]
    # The best that are not trained to the end yet come from the highest level.
    rest = costs[-1] if len(costs) > 1 and reached[-2] > reached[-1] else sum(costs[1:])
    while len(shares) > 1 and reached[-1] < min(finalists, reached[0]) and rest <= left:
        reached[-1] += 1
        spent, left = spent + rest, left - rest
        rest = costs[-1] if reached[-2] > reached[-1] else sum(costs[1:])
    left -= full - begun
    repeated = min(finalists, reached[-1]) + 1
    most = plan.confirmations * repeated
    repeats = min(most, int(max(0.0, left) // full) if math.isfinite(left) and full > 0 else most)
    total = untuned + full + spent + repeats * full
    return Forecast(
        designs=reached[0],
        finished=reached[-1],
        repeats=repeats,
        rounds=repeats // repeated,
        device_seconds=total if budget is None else min(total, budget),
    )
