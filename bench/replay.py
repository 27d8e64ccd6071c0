"""Replay a search on recorded learning curves, with several workers, on a simulated clock of device-seconds."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, Literal, Protocol

from luthier.design import Design
from luthier.trial import TrialState
from search.policy import asha
from search.policy.history import Past, RungScore
from search.policy.scheduler import End, MarkInfeasible, Promote, Try

RESUME_SECONDS: Final = 0.2  # cost of a pause: saving the checkpoint, uploading it and loading it again


Decision = Literal["continue", "pause", "stop"]


class Curve(Protocol):
    """A design's learning curve: its scores at the rungs it reaches, and at last the final one."""

    def cost_at(self, at: int) -> float:
        """Return the device-seconds up to a score."""
        ...

    def score_at(self, at: int) -> RungScore: ...

    def ends_at(self, at: int) -> bool: ...


class Curves(Protocol):
    """A source of learning curves: a recorded table, or one that trains designs on request."""

    def curve(self, design: Design) -> Curve: ...


class Searcher(Protocol):
    """A search algorithm: chooses what to train next, and what happens to a trial at a rung."""

    def next(self, history: Sequence[Past]) -> Try | MarkInfeasible | Promote | End | None:
        """Return the next step; None to wait for a running trial."""
        ...

    def at_rung(self, history: Sequence[Past], number: int) -> Decision:
        """Decide what happens to a trial that was just scored at a rung."""
        ...

    def completed(self, past: Past) -> None:
        """Receive a trial that was trained to the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A design that was trained to the end, after `spent` device-seconds of the search."""

    spent: float
    value: float
    design: Design


def replay(
    table: Curves, searcher: Searcher, workers: int, budget: float = math.inf, history: list[Past] | None = None
) -> Iterator[Scored]:
    """Yield each design trained to the end, in order of time, until the search ends or the budget is spent.

    `budget` is in device-seconds, summed over the busy workers. Repeats of the same design cost nothing. The trials are
    left in `history`; those still open there were running when the budget was spent.
    """
    history = [] if history is None else history
    running: list[tuple[float, int, int]] = []  # time of the next score, tie-breaker, trial number
    order, now, spent, free = count(), 0.0, 0.0, workers
    while True:
        while free and (step := searcher.next(history)) is not None and not isinstance(step, End):
            if isinstance(step, MarkInfeasible):
                refused = {"state": TrialState.INFEASIBLE, "error": step.why}
                history.append(Past.model_validate({"number": len(history), "design": step.design} | refused))
                continue
            number = _begin(history, step)
            heapq.heappush(
                running, (now + _segment(table, history[number], isinstance(step, Promote)), next(order), number)
            )
            free -= 1
        if not running:
            return
        then, _, number = heapq.heappop(running)
        spent += (then - now) * (workers - free)
        if spent >= budget:
            return
        now = then
        past = history[number] = _scored(table, history[number])
        if past.state is TrialState.COMPLETE:
            free += 1
            searcher.completed(past)
            assert past.value is not None
            yield Scored(spent=spent, value=past.value, design=past.design)
            continue
        match searcher.at_rung(history, number):
            case "continue":
                if past.goal is not None and len(past.measured) > past.goal:
                    history[number] = past.model_copy(update={"goal": asha.above(past.design, past.goal)})
                heapq.heappush(running, (now + _segment(table, past, False), next(order), number))
            case "pause":
                free += 1
                history[number] = past.model_copy(update={"state": TrialState.WAITING})
            case "stop":
                free += 1
                history[number] = past.model_copy(update={"state": TrialState.PRUNED})


def _begin(history: list[Past], step: Try | Promote) -> int:
    match step:
        case Try():
            history.append(Past(number=len(history), design=step.design, state=TrialState.LEASED, goal=step.goal))
            return len(history) - 1
        case Promote():
            past = history[step.number]
            history[step.number] = past.model_copy(update={"state": TrialState.LEASED, "goal": step.goal})
            return step.number


def _segment(table: Curves, past: Past, resumed: bool) -> float:
    """Device-seconds until the trial's next score."""
    curve, at = table.curve(past.design), len(past.measured)
    return curve.cost_at(at) - (curve.cost_at(at - 1) if at else 0.0) + RESUME_SECONDS * resumed


def _scored(table: Curves, past: Past) -> Past:
    """The trial after its next score."""
    curve = table.curve(past.design)
    at = len(past.measured)
    changes = {"device_seconds": curve.cost_at(at)}
    if curve.ends_at(at):
        value = curve.score_at(at).value
        return past.model_copy(update=changes | {"state": TrialState.COMPLETE, "value": value})
    return past.model_copy(update=changes | {"measured": (*past.measured, curve.score_at(at))})
