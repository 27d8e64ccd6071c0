"""Replays a search on a recorded table, with several workers at once, by a clock of device-seconds."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, Literal, Protocol

from bench.atlas.table import Curve
from luthier.design import Design
from luthier.trial import TrialState
from search.policy import asha
from search.policy.history import Past
from search.policy.scheduler import End, Promote, Try

RESUME_SECONDS: Final = 0.2  # to save a checkpoint, give it back, and load it again


class Curves(Protocol):
    """Where a design's curve is looked up: a recorded table, or one that trains what it is asked for."""

    def curve(self, design: Design) -> Curve: ...


class Searcher(Protocol):
    """Says what to train next, and what becomes of a trial that has been scored at a rung."""

    def next(self, history: Sequence[Past]) -> Try | Promote | End | None:
        """None: nothing until a running trial tells more."""
        ...

    def verdict(self, history: Sequence[Past], number: int) -> Literal["continue", "pause", "stop"]:
        """About a trial that has just been scored at a rung."""
        ...

    def ended(self, past: Past) -> None:
        """A trial was trained to its end."""
        ...


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A design trained to its end, at a moment in device-seconds."""

    spent: float
    value: float
    design: Design


def replay(
    table: Curves, searcher: Searcher, workers: int, budget: float = math.inf, history: list[Past] | None = None
) -> Iterator[Scored]:
    """Every design that is trained to its end, in the order of time, until the searcher ends or the budget is spent.

    A design that was trained before costs nothing again. Device-seconds count the workers that are busy. The trials are
    left in `history`; those that are open there ran when the budget was spent.
    """
    history = [] if history is None else history
    running: list[tuple[float, int, int]] = []  # when, tie-break, number
    order, now, spent, free = count(), 0.0, 0.0, workers
    while True:
        while free and (step := searcher.next(history)) is not None and not isinstance(step, End):
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
            searcher.ended(past)
            assert past.value is not None
            yield Scored(spent=spent, value=past.value, design=past.design)
            continue
        match searcher.verdict(history, number):
            case "continue":
                if past.goal is not None and len(past.measured) > past.goal:
                    history[number] = past.model_copy(update={"goal": asha.above(past.goal)})
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
    """Device-seconds to the next score."""
    costs = table.curve(past.design).costs
    at = len(past.measured)
    return costs[at] - (costs[at - 1] if at else 0.0) + RESUME_SECONDS * resumed


def _scored(table: Curves, past: Past) -> Past:
    """The trial after its next score."""
    curve = table.curve(past.design)
    at = len(past.measured)
    changes = {"device_seconds": curve.costs[at]}
    if at == len(curve.standing) - 1:
        return past.model_copy(update=changes | {"state": TrialState.COMPLETE, "value": curve.value})
    return past.model_copy(update=changes | {"measured": (*past.measured, curve.standing[at])})
