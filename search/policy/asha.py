"""Asynchronous successive halving with promotion (ASHA: Li et al. 2020, arXiv 1810.05934).

A trial is scored at each rung. It pauses there unless it ranks in the top 1/ETA of all trials ever scored at that rung,
or of those with the same objective sequence (what its stages maximise, in order). Without the second rule, methods that
improve late (preference optimisation, reinforcement learning) would always stop at the first rung. A paused trial is
promoted later if enough worse trials arrive; it then resumes from its checkpoint.

A trial whose length is fixed has its rungs at shares of its own training, so that every trial is compared under its own
learning-rate schedule. A trial that ends at its best moment has rungs at numbers of rows, without a last one. Its score
there is that of the best moment so far: what the trial would give if it ended at the rung.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from luthier.design import Design
from luthier.trial import RUNG_FACTOR, TrialState, top_rung
from search.policy.features import objective_sequence
from search.policy.history import Past
from search.policy.ranking import DEFAULT

ETA: Final = RUNG_FACTOR  # so each rung costs about as much, over all trials, as the one before
FIRST: Final = 0  # the first rung at which trials pause


def promotable(history: Sequence[Past]) -> Past | None:
    """Return the paused trial to promote next: the best one on the highest rung that has one in its top 1/ETA."""
    for rung in reversed(range(rungs(history))):
        for past in _top(rung_score(history, rung)):
            if past.paused and past.goal == rung:
                return past
    return None


def goes_on(history: Sequence[Past], number: int) -> bool:
    """Return whether a trial that was just scored at its goal ranks high enough there to continue without pausing."""
    past = next(past for past in history if past.number == number)
    assert past.goal is not None, "a trial without a goal never pauses"
    return past.number in [other.number for other in _top(rung_score(history, past.goal))]


def not_promotable(history: Sequence[Past], coming: int, finalists: int) -> list[Past]:
    """Return the paused trials that cannot be promoted any more; their checkpoints can be deleted.

    `coming` more designs will be tried. The best `finalists` trials and the default are trained to the end whatever
    their rank, so they are never returned. Failed trials count in the rank at a rung, but not as finalists.
    """
    found: list[Past] = []
    for rung in range(rungs(history)):
        ranked = rung_score(history, rung)
        climbing = sum(
            len(past.measured) <= rung and past.confirms is None for past in history if past.open or past.paused
        )
        reachable = {past.number for past in _top(ranked, climbing + coming)}
        ahead = 0  # better trials that can be finalists
        for past in ranked:
            kept = past.number == DEFAULT or past.number in reachable or ahead < finalists
            if past.paused and past.goal == rung and not kept:
                found.append(past)
            ahead += can_be_finalist(past)
    return found


def can_be_finalist(past: Past) -> bool:
    """Return whether a trial is complete or may still complete. The default never counts as a finalist."""
    states = (TrialState.WAITING, TrialState.LEASED, TrialState.COMPLETE)
    return past.number != DEFAULT and past.state in states


def above(design: Design, rung: int) -> int | None:
    """Return the next goal of a trial promoted from `rung`; None means the end of training."""
    return None if rung == top_rung(design) else rung + 1


def rungs(history: Sequence[Past]) -> int:
    """Return how many rungs any trial has reached."""
    return max((len(past.measured) for past in history), default=0)


def rung_score(history: Sequence[Past], rung: int) -> list[Past]:
    """Return all trials scored at the rung, best first. Repeats with other seeds are left out."""
    found = {past.number: past.score_at(rung) for past in history if past.confirms is None}
    scored = [(score.rank_key, past) for past in history if (score := found.get(past.number)) is not None]
    return [past for _, past in sorted(scored, key=lambda one: (one[0], one[1].number))]


def overall_ranking(history: Sequence[Past]) -> list[Past]:
    """Return all trials ever scored, best first, each by the latest score that is known of it.

    The first rung ranks all trials that reached it. The trials that went on keep their positions as a group, and are
    reordered within these positions by their scores at the next rung, and so on to the end of training.
    """
    done = [past for past in history if past.value is not None and past.confirms is None and past.design.stages]
    ordered = sorted(done, key=lambda past: (past.value, past.number))
    for rung in reversed(range(rungs(history))):
        level = rung_score(history, rung)
        at_rung = {past.number for past in level}
        further = [past for past in ordered if past.number in at_rung]
        numbers = {past.number for past in further}
        reordered = iter(further)
        unscored = [past for past in ordered if past.number not in at_rung]
        ordered = unscored + [next(reordered) if past.number in numbers else past for past in level]
    return ordered


def _top(ranked: Sequence[Past], worse_to_come: int = 0) -> list[Past]:
    """Trials in the top 1/ETA of all at a rung, or of those with their objective sequence.

    `worse_to_come` is how many worse trials are assumed to join each of the two groups.
    """
    top: list[Past] = []
    sizes = Counter(objective_sequence(past.design) for past in ranked)
    better: Counter[str] = Counter()
    for rank, past in enumerate(ranked):
        sequence = objective_sequence(past.design)
        if rank < (len(ranked) + worse_to_come) // ETA or better[sequence] < (sizes[sequence] + worse_to_come) // ETA:
            top.append(past)
        better[sequence] += 1
    return top
