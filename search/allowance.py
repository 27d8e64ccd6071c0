"""What steps take of a job's device-seconds, as far as its own trials tell, so that what is begun can also be ended."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.trial import RUNGS
from search.policy.history import Past


def whole(history: Sequence[Past]) -> float:
    """Device-seconds of a whole training, the mean over trials that are complete or pause; 0 where there are none."""
    known = [
        past.device_seconds / (1.0 if past.value is not None else RUNGS[len(past.measured) - 1])
        for past in history
        if past.design.stages and (past.value is not None or past.paused)
    ]
    return sum(known) / len(known) if known else 0.0


def committed(history: Sequence[Past]) -> float:
    """What the trials that run, or wait for a worker, are still going to take."""
    usual, by_number = whole(history), {past.number: past for past in history}
    left = 0.0
    for past in history:
        if past.open:
            all_of_it = usual if past.confirms is None else by_number[past.confirms].device_seconds
            left += max(0.0, share(past.goal) * all_of_it - past.device_seconds)
    return left


def going_on(past: Past, goal: int | None) -> float:
    """What a trial that pauses takes to this rung, or to its end."""
    done = RUNGS[len(past.measured) - 1]
    return past.device_seconds * (share(goal) - done) / done


def share(goal: int | None) -> float:
    """Of a whole training, until this rung or the end."""
    return 1.0 if goal is None else RUNGS[goal]
