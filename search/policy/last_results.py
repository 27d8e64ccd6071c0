"""Which trials still get a result once the budget of their job is spent, or nearly: the default and one design."""

from __future__ import annotations

from collections.abc import Sequence

from search.policy import asha, ranking
from search.policy.history import Past
from search.policy.ranking import DEFAULT


def to_wrap_up(history: Sequence[Past]) -> list[Past]:
    """Return the trials that are resumed for their result, whatever is left of the budget: at most two.

    They are the default, and the best design so far if no design is complete. Only a self-ending training can be among
    them: it ends with its best moment, so that little more than the scoring of it is left. One that is already trained
    to its end comes before better ones that would have to be resumed.
    """
    waiting = [past for past in asha.overall_ranking(history) if _can_wrap_up(past)]
    default = [past for past in waiting if past.number == DEFAULT]
    if any(past.number != DEFAULT for past in ranking.rank(history)):
        return default
    designs = [past for past in waiting if past.number != DEFAULT]
    designs.sort(key=lambda past: not (past.open and past.goal is None))
    return designs[:1] + default


def _can_wrap_up(past: Past) -> bool:
    return past.design.self_ending and (past.paused or past.open)
