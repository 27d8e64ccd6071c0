"""Asynchronous successive halving that promotes (ASHA: Li et al. 2020, arXiv 1810.05934).

A trial is scored at each rung and pauses there unless it is among the best 1/ETA of all that were ever scored at that
rung, or of those whose stages maximise the same things in the same order: what starts late, as preference methods and
rewards do, would else never be seen beside what starts early. One that is not may get there later, as worse ones
arrive: then it goes on from its checkpoint. Nothing is judged by a shorter schedule than it has: a rung is a share of
the trial's own training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from luthier.trial import RUNGS, TrialState
from search.policy.features import phases
from search.policy.history import Past
from search.policy.ranking import DEFAULT

ETA: Final = 3
FIRST: Final = 0  # the rung where trials pause first


def promotable(history: Sequence[Past]) -> Past | None:
    """The paused trial to go on with: of the highest rung that has one among its best, the best."""
    for rung in reversed(range(len(RUNGS))):
        for past in _leading(history, rung):
            if past.paused and past.goal == rung:
                return past
    return None


def goes_on(history: Sequence[Past], number: int) -> bool:
    """Whether the trial, which has just been scored at its goal, is among the best there and need not pause."""
    past = next(past for past in history if past.number == number)
    assert past.goal is not None, "a trial that goes to its end does not ask"
    return past.number in [one.number for one in _leading(history, past.goal)]


def hopeless(history: Sequence[Past], coming: int, kept: int) -> list[Past]:
    """The paused trials that can no longer be promoted when `coming` more designs are tried and `kept` are trained to
    the end whatever their place: their checkpoints need not be kept.

    Places count among all that were scored, whatever became of them; who is trained to the end whatever its place is
    the best of those that have not failed.
    """
    found: list[Past] = []
    for rung in range(len(RUNGS)):
        ranked = rung_score(history, rung)
        climbing = sum(len(past.measured) <= rung and past.confirms is None for past in history if _alive(past))
        lifted = {past.number for past in _best(ranked, climbing + coming)}
        ahead = 0  # of those that may be trained to the end
        for past in ranked:
            if past.paused and past.goal == rung and past.number not in lifted and ahead >= kept:
                found.append(past)
            ahead += _to_end(past)
    return found


def _to_end(past: Past) -> bool:
    """Whether it may still be one of those trained to the end, which the default is not counted among."""
    return past.number != DEFAULT and (_alive(past) or past.state is TrialState.COMPLETE)


def _alive(past: Past) -> bool:
    return past.open or past.paused


def above(rung: int) -> int | None:
    """The goal of a trial that is promoted from `rung`; None is the end."""
    return rung + 1 if rung + 1 < len(RUNGS) else None


def rung_score(history: Sequence[Past], rung: int) -> list[Past]:
    """All that were scored at the rung, best first."""
    scored = [past for past in history if len(past.measured) > rung and past.confirms is None]
    return sorted(scored, key=lambda past: (past.measured[rung].rank_key, past.number))


def order(history: Sequence[Past]) -> list[Past]:
    """All trials that were ever scored, best first, by the best that is known of each.

    The standing at a rung orders all that got there; those that went on keep their places as a group, and share
    them out among themselves by how they stand further up.
    """
    done = [past for past in history if past.value is not None and past.confirms is None and past.design.stages]
    ordered = sorted(done, key=lambda past: (past.value, past.number))
    for rung in reversed(range(len(RUNGS))):
        level = rung_score(history, rung)
        here = {past.number for past in level}
        further = [past for past in ordered if past.number in here]
        numbers = {past.number for past in further}
        turns = iter(further)
        unscored = [past for past in ordered if past.number not in here]
        ordered = unscored + [next(turns) if past.number in numbers else past for past in level]
    return ordered


def _leading(history: Sequence[Past], rung: int) -> list[Past]:
    return _best(rung_score(history, rung), 0)


def _best(ranked: Sequence[Past], more: int) -> list[Past]:
    """Those that have places among all at a rung or among their own sort, if `more` worse ones come to both."""
    best: list[Past] = []
    sorts = Counter(phases(past.design) for past in ranked)
    before: Counter[str] = Counter()
    for place, past in enumerate(ranked):
        sort = phases(past.design)
        if place < (len(ranked) + more) // ETA or before[sort] < (sorts[sort] + more) // ETA:
            best.append(past)
        before[sort] += 1
    return best
