"""Decide what a job does next: a pure function of its trials, its search space and its remaining budget.

    the untuned base → the default and designs, promoted rung by rung (ASHA) → the best k and the default trained to the
    end → repeats of these with other seeds → end

The service applies one step at a time to the store. Benchmarks call the same function on recorded learning curves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Final

from pydantic import Field

from luthier.design import Design
from luthier.trial import RUNG_FACTOR, RUNGS, top_rung
from luthier.values import Frozen
from search.policy import asha, ranking
from search.policy.choose_sampler import LUTHIER
from search.policy.history import Past
from search.policy.last_results import to_wrap_up
from search.policy.propose import Source, origin, propose
from search.policy.ranking import DEFAULT, UNTUNED
from search.policy.warm_start import SimilarJob
from search.space.space import Space

MAX_INFEASIBLE: Final = 20  # proposing stops after this many infeasible designs in a row, or `trials` if that is more
# Early finish: how many designs in a row bring no new best, as a minimum and as a share of the job's trials.
PATIENCE, PATIENCE_SHARE = 12, 1 / 3
REPEATS_SHARE: Final = 1 / 3  # the largest share of the budget, without the baselines, that is reserved for repeats
FINISHING_SHARE: Final = 1 / 2  # the largest share that is reserved for training the default and one design to the end
# A paused trial without a fixed length is expected to train for at least this share of its training so far, and, while
# no other has ended, up to this rung.
LEAST_REST: Final = 0.5
EXPECTED_RUNG: Final = 2
BASELINES: Final = (UNTUNED, DEFAULT)
MOST_SECONDS, BISECTIONS = 1e12, 40


class Plan(Frozen):
    """What a job may spend, and on what."""

    trials: int = Field(ge=1, description="number of designs, with the baselines and without infeasible ones")
    finalists: int = Field(ge=1, description="how many of the best designs are trained to the end in any case")
    confirmations: int = Field(ge=0, description="repeats of each finalist and of the default, each with another seed")
    seed: int
    early_finish: bool = Field(default=True, description="stop when further designs are unlikely to improve the best")
    sampler: str = Field(default=LUTHIER, description="what proposes designs: a name or import path of choose_sampler")
    extended_from: int = Field(
        default=0, ge=0, description="of an extended search: the number of its first trial since; 0: not extended"
    )
    resplit: bool = Field(
        default=False, description="whether each repeat of a design is trained and scored on another split of the rows"
    )


class Try(Frozen):
    """Queue a trial of this design. It pauses at rung `goal`; None trains to the end."""

    design: Design
    origin: Source
    goal: int | None


class MarkInfeasible(Frozen):
    """Record that this design cannot run on any worker, and why. It is never launched."""

    design: Design
    origin: Source
    why: str


class Promote(Frozen):
    """Resume a paused trial. It pauses again at rung `goal`; None trains to the end."""

    number: int
    goal: int | None


class Repeat(Frozen):
    """Queue another trial of a trial's design with another seed: the job's seed plus `seed_offset`."""

    number: int
    seed_offset: int = Field(ge=1)


class EndCode(StrEnum):
    """Why a search starts no more trials, as a stable code."""

    TRIALS = "trials"  # the job has tried as many designs as it asked for
    DEVICE_SECONDS = "device_seconds"  # the device-seconds left are spent, or reserved for finishing the best designs
    DEADLINE = "deadline"  # the job's deadline has passed
    NO_IMPROVEMENT = "no_improvement"  # early finish: a long run of designs without a new best
    SPACE_EXHAUSTED = "space_exhausted"  # every design of the search space was tried
    BASE_INFEASIBLE = "base_infeasible"  # the untuned base model itself cannot run on the workers
    REFUSED = "refused"  # too many proposals in a row cannot run on any worker


class End(Frozen):
    """The search is done. `reason` says why, as a clause that follows "No more trials: "."""

    code: EndCode
    reason: str


RESERVED: Final = End(
    code=EndCode.DEVICE_SECONDS,
    reason="the budget left for designs is too small for another one",
)
Step = Try | MarkInfeasible | Promote | Repeat | End
WhyInfeasible = Callable[[Design], str | None]  # why a design cannot run on any worker; None if it can


def next_step(
    space: Space,
    history: Sequence[Past],
    plan: Plan,
    *,
    remaining: float | None,
    why_infeasible: WhyInfeasible,
    similar_jobs: Sequence[SimilarJob] = (),
) -> Step | None:
    """Return the next step for a free worker, or None if it depends on trials that are still running.

    `remaining` is the number of device-seconds left to spend; None means no limit. A trial starts only if the budget
    left after the running trials is expected to cover it.
    """
    budget_left = _budget_left(history, remaining)
    end = _no_more_designs(history, plan, budget_left)
    if end is None:
        if (promoted := _promotable(history)) is not None and _affordable(history, promoted, budget_left):
            return _promote(promoted)
        design = propose(space, history, plan.seed, plan.trials, similar_jobs, plan.sampler)
        # Once repeats have begun, the set of designs is fixed until the search is extended, even if workers have
        # joined since.
        repeating = any(past.confirms is not None for past in _since(history, plan))
        if design is not None and promoted is None and not repeating:
            return _try(space, design, plan, why_infeasible, similar_jobs)
        if design is not None:
            end = RESERVED
        else:
            reason = f"all {len(_designs(history))} designs that the pins and constraints allow were tried"
            end = End(code=EndCode.SPACE_EXHAUSTED, reason=reason)
    return _finish(history, plan, end, budget_left)


def goes_on(history: Sequence[Past], number: int, remaining: float | None) -> bool:
    """Return whether a trial that was just scored at its goal continues without pausing.

    It does if it ranks high enough at its rung and the remaining budget is expected to last until its next score.
    """
    past = next(past for past in history if past.number == number)
    others = [other for other in history if other.number != number]
    return asha.goes_on(history, number) and _affordable(history, past, _budget_left(others, remaining))


def not_promotable(history: Sequence[Past], plan: Plan, remaining: float | None) -> list[Past]:
    """Return the paused trials that cannot be promoted any more."""
    over = _no_more_designs(history, plan, _budget_left(history, remaining)) is not None
    coming = 0 if over else plan.trials - len(_designs(history))
    return asha.not_promotable(history, coming, plan.finalists)


def to_repeat(history: Sequence[Past], plan: Plan) -> list[Past]:
    """Return the trials whose designs are repeated with other seeds: the finalists and, as a baseline, the default."""
    default = [past for past in ranking.rank(history) if past.number == DEFAULT]
    return ranking.finalists(history, plan.finalists, plan.extended_from) + default


def reserve(history: Sequence[Past], plan: Plan, remaining: float) -> float:
    """Estimate the device-seconds to keep for finishing the default and one design, and for repeating the best.

    `remaining` is what the job may still spend. At most FINISHING_SHARE of the budget is kept for finishing, the
    untuned base not counted. Nothing is kept for repeats until `finalists` designs have been tried, and after that at
    most REPEATS_SHARE of the budget, the baselines not counted. In an extended search both count from the extension.
    """
    ranked = ranking.rank(history)
    full = max((past.device_seconds for past in ranked[: plan.finalists]), default=full_training_seconds(history))
    spent = sum(past.device_seconds for past in _since(history, plan) if past.number != UNTUNED)
    finishing = min(_finishing_seconds(history, plan), FINISHING_SHARE * (spent + remaining))
    return finishing + min(full * _repeats_left(history, plan), _reserved_for_repeats(history, plan, remaining))


def _finishing_seconds(history: Sequence[Past], plan: Plan) -> float:
    """How long it takes to train the default to the end, and one design if none has been."""
    paused = [past for past in history if past.paused and past.number == DEFAULT]
    default = sum(continuation_seconds(history, past, None) for past in paused)
    missing = plan.trials > len(BASELINES) and all(past.number == DEFAULT for past in ranking.rank(history))
    return default + full_training_seconds(history) * missing


def _repeats_left(history: Sequence[Past], plan: Plan) -> int:
    """How many repeats may still be needed; designs that are yet to come may replace all finalists."""
    of_default = sum(past.confirms == DEFAULT for past in history)
    return (plan.finalists + 1) * plan.confirmations - min(of_default, plan.confirmations)


def _reserved_for_repeats(history: Sequence[Past], plan: Plan, remaining: float) -> float:
    tried = [past for past in _designs(_since(history, plan)) if past.number not in BASELINES]
    if len(tried) < min(plan.finalists, plan.trials - len(BASELINES)):
        return 0.0
    spent = sum(past.device_seconds for past in _since(history, plan) if past.number not in BASELINES)
    return REPEATS_SHARE * (spent + remaining)


def seconds_for_another(history: Sequence[Past], plan: Plan) -> float:
    """Return the device-seconds that must be left so that another design starts, or a paused trial that comes before it
    is promoted; 0 if no number of them suffices."""
    committed = committed_seconds(history)
    promoted = _promotable(history)
    goal = None if promoted is None or promoted.goal is None else asha.above(promoted.design, promoted.goal)
    first = 0.0 if promoted is None else continuation_seconds(history, promoted, goal)

    def ends(left: float) -> bool:
        found = _no_more_designs(history, plan, left)
        return found is not None and found.code is EndCode.DEVICE_SECONDS

    low, high = 0.0, 1.0
    while ends(high):
        low, high = high, 2 * high
        if high > MOST_SECONDS:
            return 0.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if ends(middle) else (low, middle)
    return committed + max(high, first)


def full_training_seconds(history: Sequence[Past]) -> float:
    """Return the mean device-seconds of a whole training over complete and paused trials; 0 if there are none.

    A paused trial of fixed length is extrapolated from its rung. The end of a self-ending trial is unknown: it counts
    only if no trial is complete, and then as if it ended one rung later, or at rung EXPECTED_RUNG.
    """
    known, guessed = list[float](), list[float]()
    for past in history:
        if past.design.stages and past.value is not None:
            known.append(past.device_seconds)
        elif past.paused and past.design.stages:
            top = top_rung(past.design)
            level = max(len(past.measured), EXPECTED_RUNG) if top is None else top + 1
            (guessed if top is None else known).append(past.device_seconds * _growth(past, level))
    found = known or guessed
    return sum(found) / len(found) if found else 0.0


def first_rung_seconds(history: Sequence[Past]) -> float:
    """Return the mean device-seconds of a training up to the first rung; 0 without complete and paused trials."""
    known = [
        past.device_seconds / RUNG_FACTOR ** _level(past)
        for past in history
        if past.design.stages and (past.value is not None or past.paused)
    ]
    return sum(known) / len(known) if known else 0.0


def committed_seconds(history: Sequence[Past]) -> float:
    """Estimate the device-seconds that running and queued trials still need to reach their goals."""
    by_number = {past.number: past for past in history}
    whole, first = full_training_seconds(history), first_rung_seconds(history)
    left = 0.0
    for past in history:
        if past.open:
            usual = whole if past.confirms is None else by_number[past.confirms].device_seconds
            at_goal = usual if past.goal is None else first * RUNG_FACTOR**past.goal
            left += max(0.0, at_goal - past.device_seconds)
    return left


def continuation_seconds(history: Sequence[Past], past: Past, goal: int | None) -> float:
    """Estimate the device-seconds that a paused trial needs to reach rung `goal`, or its end if None."""
    if goal is None and top_rung(past.design) is None:
        return max(full_training_seconds(history) - past.device_seconds, past.device_seconds * LEAST_REST)
    return past.device_seconds * (_growth(past, len(RUNGS) if goal is None else goal) - 1.0)


def _growth(past: Past, level: int) -> float:
    """By what factor a paused trial's training grows from its rung to rung `level`; the end is one after the last."""
    return float(RUNG_FACTOR ** (level - len(past.measured) + 1))


def _level(past: Past) -> float:
    """How many rungs after the first one a complete or paused trial is; the end of a fixed length is one more.

    A training that ended by itself also reported the next rung. It ended between the last two rungs that it reported:
    on average, half-way.
    """
    if past.value is None:
        return len(past.measured) - 1
    top = top_rung(past.design)
    return max(0.0, len(past.measured) - 1.5) if top is None else top + 1


def _since(history: Sequence[Past], plan: Plan) -> list[Past]:
    """The trials since the search was extended; all trials if it was not."""
    return [past for past in history if past.number >= plan.extended_from]


def _budget_left(history: Sequence[Past], remaining: float | None) -> float:
    """Device-seconds for trials that have not started yet."""
    return math.inf if remaining is None else remaining - committed_seconds(history)


def _affordable(history: Sequence[Past], past: Past, budget_left: float) -> bool:
    assert past.goal is not None, "only a trial at a rung can be promoted"
    return continuation_seconds(history, past, asha.above(past.design, past.goal)) <= budget_left


def _designs(history: Sequence[Past]) -> list[Past]:
    """Trials that count towards `Plan.trials`: neither repeats nor designs that were refused before launch."""
    return [past for past in history if past.confirms is None and not past.refused]


def _no_more_designs(history: Sequence[Past], plan: Plan, budget_left: float) -> End | None:
    """Why no further design is started; None while designs are still started."""
    if len(_designs(history)) >= plan.trials:
        return End(code=EndCode.TRIALS, reason=f"all {plan.trials} trials are done")
    launched = (past for past in _since(history, plan) if past.confirms is None)
    latest = sorted(launched, key=lambda past: past.number, reverse=True)
    refused = next((count for count, past in enumerate(latest) if not past.refused), len(latest))
    if refused >= max(MAX_INFEASIBLE, plan.trials):
        why = latest[0].error or latest[0].design.summary()
        return End(code=EndCode.REFUSED, reason=f"the last {refused} proposed designs cannot run: {why}")
    kept = 0.0 if math.isinf(budget_left) else reserve(history, plan, budget_left + committed_seconds(history))
    if budget_left <= kept + first_rung_seconds(history):
        return RESERVED
    return _early_finish(history, plan) if plan.early_finish else None


def _early_finish(history: Sequence[Past], plan: Plan) -> End | None:
    """Stop after a long run of scored designs without a new best.

    If n designs came in random order, the next one would be the best with probability 1 / (n + 1). A search that has
    learned something should do better than that, so a long run without a new best means that little is left to gain.
    """
    ranked = asha.overall_ranking(history)
    patience = max(PATIENCE, math.ceil(plan.trials * PATIENCE_SHARE))
    if not ranked or len(ranked) < 2 * patience:
        return None
    best = ranked[0]
    later = sum(past.number > best.number for past in _since(ranked, plan))
    if later < patience:
        return None
    return End(code=EndCode.NO_IMPROVEMENT, reason=f"the last {later} designs did not improve on trial {best.number}")


def _try(
    space: Space, design: Design, plan: Plan, why_infeasible: WhyInfeasible, similar_jobs: Sequence[SimilarJob]
) -> Step:
    source = origin(space, design, similar_jobs)
    why = why_infeasible(design)
    if why is not None:
        return MarkInfeasible(design=design, origin=source, why=why)
    # If every design is a finalist anyway, pausing at rungs would decide nothing. A baseline of fixed length would have
    # no result if the budget ended while it is paused.
    unpaused = source == "baseline" and not design.self_ending
    to_end = unpaused or plan.trials - len(BASELINES) <= plan.finalists
    return Try(design=design, origin=source, goal=None if to_end else asha.FIRST)


def _promotable(history: Sequence[Past]) -> Past | None:
    """Return the paused trial to promote before another design is tried.

    The default follows the designs: it goes on to a rung that so many of them have reached that, with it, the best one
    there can be promoted.
    """
    reached = [len(past.measured) for past in history if past.confirms is None]
    following = (
        past
        for past in _paused_default(history)
        if sum(rungs > len(past.measured) for rungs in reached) >= asha.ETA - 1
    )
    return asha.promotable(history) or next(following, None)


def _promote(past: Past) -> Promote:
    assert past.goal is not None, "a trial pauses only at a rung"
    return Promote(number=past.number, goal=asha.above(past.design, past.goal))


def _finish(history: Sequence[Past], plan: Plan, end: End, budget_left: float) -> Step | None:
    """The next step once no further design is started: promote, finish the best and the default, repeat, then `end`."""
    if (promoted := asha.promotable(history)) is not None and _affordable(history, promoted, budget_left):
        return _promote(promoted)
    # One after the other, the default and one design are resumed though the budget may end before they do.
    alone = budget_left > 0 and not any(past.open for past in history)
    last = {past.number for past in to_wrap_up(history)} if alone else set()
    for past in (*_paused_finalists(history, plan.finalists), *_paused_default(history)):
        if past.number in last or continuation_seconds(history, past, None) <= budget_left:
            return Promote(number=past.number, goal=None)
    if any(past.open for past in history if past.confirms is None):
        return None
    waiting = [(_repeats(history, past), past) for past in to_repeat(history, plan)]
    if (
        plan.resplit
    ):  # scores of a split compare only with one another, so all designs are repeated on it before the next
        waiting.sort(key=lambda pair: pair[0])
    for repeats, past in waiting:
        if repeats < plan.confirmations and past.device_seconds <= budget_left:
            return Repeat(number=past.number, seed_offset=repeats + 1)
    return None if any(past.open for past in history) else end


def _repeats(history: Sequence[Past], past: Past) -> int:
    return sum(other.confirms == past.number for other in history)


def _paused_finalists(history: Sequence[Past], count: int) -> Iterator[Past]:
    """Yield paused trials to train to the end although they were not promoted, those on the highest rungs first.

    Each is among the best `count` at its rung, without failed trials and the default, and no running trial can still
    reach that rung and overtake it.
    """
    for rung in reversed(range(asha.rungs(history))):
        if any(past.open and past.goal is not None and past.goal <= rung for past in history):
            continue
        ranked = [past for past in asha.rung_score(history, rung) if asha.can_be_finalist(past)]
        yield from (past for past in ranked[:count] if past.paused and past.goal == rung)


def _paused_default(history: Sequence[Past]) -> list[Past]:
    return [past for past in history if past.number == DEFAULT and past.paused]
