"""What the evidence of a job lacks: what is not known at all, and what is less sure than it looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from luthier.metrics import figure
from luthier.report import ComparisonReport, JudgeReport
from luthier.trial import JobState, TrialState
from search.format import count
from search.policy.ranking import DEFAULT
from search.report.inputs import Case, Tried

FEW_TEST_ROWS: Final = 50
FEW_DESIGNS: Final = 5
SEEDS: Final = 3  # from which on the spread between them says something


def missing(case: Case) -> Iterator[str]:
    done = len([tried for tried in case.designs if tried.complete or tried.stopped])
    match case.state:
        case JobState.VALIDATING_FILES | JobState.QUEUED:
            yield "The job has not started yet."
        case JobState.RUNNING:
            confirming = any(tried.past.confirms is not None for tried in case.tried)
            then = "; the best are being trained from other seeds" if confirming else ""
            yield (
                f"The job still runs: {done} of {count(case.search.trials, 'design')} are done or pause at a rung"
                f"{then}. All that follows may change."
            )
        case JobState.CANCELLED:
            yield (
                f"The job was cancelled after {done} of {count(case.search.trials, 'design')}; what follows was found "
                "until then."
            )
        case JobState.FAILED:
            yield f"The job failed: {case.error or 'no reason was noted'}."
        case JobState.SUCCEEDED:
            pass
    won = case.winner
    if won is None:
        yield "No design was trained to its end, so that there is no winner, and nothing to compare."
        return
    if case.base is None:
        yield "The untuned base was not scored, so that nothing says what training was worth."
    if case.default is None:
        yield "The plain-LoRA default was not trained to its end, so that nothing says what searching was worth."
    if not case.scores(won.number):
        yield (
            "The winner has no scores of single test rows: there are no intervals, and what was forgotten is not known."
        )
    elif case.base is not None and not case.scores(case.base.number):
        yield "The untuned base has no scores of single test rows: nothing says how sure the difference to it is."
    finalists = [tried for tried in case.ranked if tried.number != DEFAULT][: case.search.finalists]
    wanted = case.search.confirmations + 1
    short = [tried.number for tried in finalists if len(case.seeds(tried.number)) < wanted]
    if short and wanted > 1:
        numbers = ", ".join(map(str, short))
        yield f"Not trained from all {wanted} seeds: {'trial' if len(short) == 1 else 'trials'} {numbers}."


def weaknesses(case: Case, judged: JudgeReport, compared: Sequence[ComparisonReport]) -> Iterator[str]:
    won = case.winner
    if won is None:
        return
    rows = min([judged.test_rows, *[one.rows for one in compared]])
    if rows < FEW_TEST_ROWS:
        yield f"Only {count(rows, 'test row')}: intervals are wide, and should be a little wider still."
    elif judged.test_rows < case.rows[2]:
        yield f"Only the first {judged.test_rows} of {case.rows[2]} test rows were scored."
    seeds = len(case.seeds(won.number))
    if seeds == 1:
        yield (
            "The winner was trained from one seed: how much its score owes to luck is not known, and no interval shows "
            "it."
        )
    elif seeds < SEEDS:
        yield f"The winner was trained from {count(seeds, 'seed')} only."
    lone = [one for one in compared if one.against != "untuned base" and one.seeds[1] == 1 and one.seeds[0] > 1]
    for one in lone:
        yield f"The {one.against} was trained from one seed only."
    for one in compared:
        if one.against == "runner-up" and one.verdict == "not distinguishable":
            yield f"On the test rows the winner cannot be told apart from the runner-up, trial {one.number}."
    equal = [tried.number for tried in case.ranked[1:] if case.value(tried) == case.value(won)]
    if equal:
        numbers = ", ".join(map(str, equal))
        shared = f"{'trial' if len(equal) == 1 else 'trials'} {numbers}"
        yield f"The winner's validation score is also that of {shared}: cost decided."
    yield from _shrunk(case, won, compared)
    trained = [tried for tried in case.designs if tried.past.design.stages]
    if len(trained) < FEW_DESIGNS:
        yield f"No more than {count(len(trained), 'design')} tried: this was hardly a search."
    broken = [tried for tried in case.tried if tried.past.state is TrialState.FAILED]
    if broken:
        yield f"{count(len(broken), 'trial')} of {len(case.tried)} failed and may have been good."


def _shrunk(case: Case, won: Tried, compared: Sequence[ComparisonReport]) -> Iterator[str]:
    """A lead that was found by choosing the best of many is larger where the choice was made."""
    against = next((one for one in compared if one.against == "plain-LoRA default"), None)
    if against is None:
        return
    lead = abs(case.value(won) - case.value(case.by_number[against.number]))
    better = (against.difference < 0) == case.lower_is_better
    tested = abs(against.difference) if better else -abs(against.difference)
    if lead > 0 and tested < lead / 2:
        yield (
            f"The lead over the default was {figure(lead)} {case.unit} on the validation rows, which chose the winner, "
            f"and is {figure(tested)} on the test rows."
        )
