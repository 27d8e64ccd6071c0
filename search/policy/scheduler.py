"""What to do next in a job: a pure function of its trials, its space and what is left of its budget.

    two baselines → designs, promoted rung by rung → the best k trained to the end → these and the default from other
    seeds → the end

The service applies the answers to the store one at a time; benchmarks replay the very same function on recorded curves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from pydantic import Field

from luthier.design import Design, Frozen
from luthier.trial import RUNGS, TrialState
from search.policy import asha, ranking
from search.policy.history import Past
from search.policy.propose import Source, origin, propose
from search.policy.ranking import DEFAULT, UNTUNED
from search.policy.warm_start import SimilarJob
from search.space.space import Space

REFUSED: Final = 20  # designs refused one after the other, at least, before no more are proposed
PATIENCE, PATIENT_SHARE = 12, 1 / 3  # designs in a row that bring nothing, at least, and as a share of the budget
BASELINES: Final = (UNTUNED, DEFAULT)


class Plan(Frozen):
    """What a job is to spend, and on what."""

    trials: int = Field(ge=1, description="designs, the baselines included and those that cannot run left out")
    finalists: int = Field(ge=1)
    confirmations: int = Field(ge=0, description="further seeds for the finalists and the default")
    seed: int
    early_finish: bool = Field(default=True, description="end where further designs are not expected to pay")


class Try(Frozen):
    """Queue a trial of this design."""

    design: Design
    origin: Source
    goal: int | None


class Refuse(Frozen):
    """Note that this design cannot run, and why; it is never launched."""

    design: Design
    origin: Source
    why: str


class Promote(Frozen):
    """Let a paused trial go on."""

    number: int
    goal: int | None


class Confirm(Frozen):
    """Queue a trial's design once more, from the `repeat`-th further seed."""

    number: int
    repeat: int = Field(ge=1)


class EndCode(StrEnum):
    """Why a search starts no more trials, as a stable code."""

    TRIALS = "trials"  # as many designs were tried as the job asked for
    DEVICE_SECONDS = "device_seconds"  # the device-seconds left are spent, or reserved for finishing the best
    DEADLINE = "deadline"  # the job's deadline has passed
    NO_IMPROVEMENT = "no_improvement"  # early finish: a long run of designs without a new best
    SPACE_EXHAUSTED = "space_exhausted"  # every design of the search space was tried
    REFUSED = "refused"  # too many proposals in a row cannot run on any worker


class End(Frozen):
    """The search is done. `reason` says why, as a clause that follows "No more trials: "."""

    code: EndCode
    reason: str


RESERVED: Final = End(
    code=EndCode.DEVICE_SECONDS,
    reason="the remaining budget is reserved for finishing and repeating the best designs",
)
Step = Try | Refuse | Promote | Confirm | End
Refusal = Callable[[Design], str | None]  # why a design cannot run on any worker, with the numbers; None where it can


def next_step(
    space: Space,
    history: Sequence[Past],
    plan: Plan,
    *,
    remaining: float | None,
    refusal: Refusal,
    memory: Sequence[SimilarJob] = (),
) -> Step | None:
    """The next thing to do where a worker is free; None until a trial that is open tells more.

    `remaining` are the device-seconds that may still be spent, None where there is no such limit. Nothing is begun that
    they are not expected to suffice for, after what runs has had its share.
    """
    budget_left = _budget_left(history, remaining)
    end = _explored(history, plan, budget_left)
    if end is None:
        if (promoted := asha.promotable(history)) is not None and _affordable(promoted, budget_left):
            return _promote(promoted)
        design = propose(space, history, plan.seed, plan.trials, memory)
        if design is not None and promoted is None and not _confirming(history):
            return _try(space, design, plan, refusal, memory)
        end = RESERVED if design is not None else _exhausted(history)
    return _finish(history, plan, end, budget_left)


def goes_on(history: Sequence[Past], number: int, remaining: float | None) -> bool:
    """Whether a trial that has just been scored at its goal need not pause: it is among the best there, and what is
    left of the budget is expected to suffice until its next score."""
    past = next(past for past in history if past.number == number)
    others = [other for other in history if other.number != number]
    return asha.goes_on(history, number) and _affordable(past, _budget_left(others, remaining))


def _budget_left(history: Sequence[Past], remaining: float | None) -> float:
    """Device-seconds for what is not begun yet."""
    return math.inf if remaining is None else remaining - committed_seconds(history)


def _affordable(past: Past, budget_left: float) -> bool:
    assert past.goal is not None, "who goes on has come to a rung"
    return continuation_seconds(past, asha.above(past.goal)) <= budget_left


def _explored(history: Sequence[Past], plan: Plan, budget_left: float) -> End | None:
    """Why no further design is started; None while they are."""
    if len(_designs(history)) >= plan.trials:
        return End(code=EndCode.TRIALS, reason=f"all {plan.trials} trials are done")
    if (refused := _refused_in_a_row(history)) >= max(REFUSED, plan.trials):
        reason = f"the last {refused} designs that were proposed cannot run: {_why_refused(history)}"
        return End(code=EndCode.REFUSED, reason=reason)
    if budget_left <= reserve(history, plan) + full_training_seconds(history) * share_of_training(asha.FIRST):
        return RESERVED
    return _settled(history, plan) if plan.early_finish else None


def _exhausted(history: Sequence[Past]) -> End:
    tried = f"all {len(_designs(history))} designs that the pins and constraints allow were tried"
    return End(code=EndCode.SPACE_EXHAUSTED, reason=tried)


def _settled(history: Sequence[Past], plan: Plan) -> End | None:
    """Why further designs are not expected to pay; None while they may.

    They are given up when so many in a row were scored and none came first. After n designs in no particular order the
    next one comes first with a chance of 1 / (n + 1); where the search has learnt something it should do better, so
    that a long run without says that what is left to gain is small.
    """
    ranked = asha.order(history)
    patience = max(PATIENCE, math.ceil(plan.trials * PATIENT_SHARE))
    if not ranked or len(ranked) < 2 * patience:
        return None
    first = ranked[0]
    later = [past for past in ranked if past.number > first.number]
    if len(later) < patience:
        return None
    reason = f"the last {len(later)} designs did not improve on trial {first.number}"
    return End(code=EndCode.NO_IMPROVEMENT, reason=reason)


def _refused_in_a_row(history: Sequence[Past]) -> int:
    """How many of the latest designs were refused before they were launched."""
    latest = sorted((past for past in history if past.confirms is None), key=lambda past: past.number, reverse=True)
    return next((count for count, past in enumerate(latest) if not past.refused), len(latest))


def _why_refused(history: Sequence[Past]) -> str:
    last = max((past for past in history if past.refused), key=lambda past: past.number)
    return last.error or last.design.summary()


def _confirming(history: Sequence[Past]) -> bool:
    """Whether the best are being compared already: then nothing is added to them, even if workers have joined since."""
    return any(past.confirms is not None for past in history)


def reserve(history: Sequence[Past], plan: Plan) -> float:
    """Device-seconds that finishing one and confirming the best will take, as far as the trials so far tell."""
    ranked = ranking.rank(history)
    whole = [past.device_seconds for past in ranked[: plan.finalists]]
    if not whole:
        return 0.0
    finishing = plan.trials > len(BASELINES) and all(past.number == DEFAULT for past in ranked)
    return max(whole) * ((plan.finalists + 1) * plan.confirmations + finishing)


def hopeless(history: Sequence[Past], plan: Plan, remaining: float | None) -> list[Past]:
    """The paused trials that will not be promoted any more."""
    over = _explored(history, plan, _budget_left(history, remaining)) is not None
    return asha.hopeless(history, 0 if over else plan.trials - len(_designs(history)), plan.finalists)


def _try(space: Space, design: Design, plan: Plan, refusal: Refusal, memory: Sequence[SimilarJob]) -> Step:
    source = origin(space, design, memory)
    why = refusal(design)
    if why is not None:
        return Refuse(design=design, origin=source, why=why)
    # Where all are finalists anyway, nothing is to be found out on the way.
    whole = source == "baseline" or plan.trials - len(BASELINES) <= plan.finalists
    return Try(design=design, origin=source, goal=None if whole else asha.FIRST)


def _finish(history: Sequence[Past], plan: Plan, end: End, budget_left: float) -> Step | None:
    """What is left to do when no further design is started."""
    if (promoted := asha.promotable(history)) is not None and _affordable(promoted, budget_left):
        return _promote(promoted)
    if (best := _finalist(history, plan.finalists, budget_left)) is not None:
        return Promote(number=best.number, goal=None)
    if any(past.open for past in history if past.confirms is None):
        return None
    for past in confirmed(history, plan):
        repeats = [one for one in history if one.confirms == past.number]
        if len(repeats) < plan.confirmations and past.device_seconds <= budget_left:
            return Confirm(number=past.number, repeat=len(repeats) + 1)
    return None if any(past.open for past in history) else end


def confirmed(history: Sequence[Past], plan: Plan) -> list[Past]:
    """Whose designs are trained from further seeds: the best complete ones, and the plain default as a yardstick."""
    default = [past for past in ranking.rank(history) if past.number == DEFAULT]
    return ranking.finalists(history, plan.finalists) + default


def _finalist(history: Sequence[Past], count: int, budget_left: float) -> Past | None:
    """A paused trial to train to the end whatever the places are: of those at its rung that have not failed it is among
    the best `count`, nobody is on the way there any more who could be better, and the purse suffices."""
    for rung in reversed(range(len(RUNGS))):
        coming = any(past.open and past.goal is not None and past.goal <= rung for past in history)
        ranked = [past for past in asha.rung_score(history, rung) if past.number != DEFAULT and _sound(past)]
        for past in ranked[:count]:
            if past.paused and past.goal == rung and not coming and continuation_seconds(past, None) <= budget_left:
                return past
    return None


def _promote(past: Past) -> Promote:
    assert past.goal is not None, "what is paused is so at a rung"
    return Promote(number=past.number, goal=asha.above(past.goal))


def _designs(history: Sequence[Past]) -> list[Past]:
    """Those that count: not the confirmations, nor what was refused before it was launched."""
    return [past for past in history if past.confirms is None and not past.refused]


def _sound(past: Past) -> bool:
    return past.state in (TrialState.WAITING, TrialState.LEASED, TrialState.COMPLETE)


def full_training_seconds(history: Sequence[Past]) -> float:
    """Device-seconds of a whole training, the mean over trials that are complete or pause; 0 where there are none."""
    known = [
        past.device_seconds / (1.0 if past.value is not None else RUNGS[len(past.measured) - 1])
        for past in history
        if past.design.stages and (past.value is not None or past.paused)
    ]
    return sum(known) / len(known) if known else 0.0


def committed_seconds(history: Sequence[Past]) -> float:
    """What the trials that run, or wait for a worker, are still going to take."""
    usual, by_number = full_training_seconds(history), {past.number: past for past in history}
    left = 0.0
    for past in history:
        if past.open:
            all_of_it = usual if past.confirms is None else by_number[past.confirms].device_seconds
            left += max(0.0, share_of_training(past.goal) * all_of_it - past.device_seconds)
    return left


def continuation_seconds(past: Past, goal: int | None) -> float:
    """What a trial that pauses takes to this rung, or to its end."""
    done = RUNGS[len(past.measured) - 1]
    return past.device_seconds * (share_of_training(goal) - done) / done


def share_of_training(goal: int | None) -> float:
    """Of a whole training, until this rung or the end."""
    return 1.0 if goal is None else RUNGS[goal]
