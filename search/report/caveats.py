"""Caveats of a report: results that are missing, and results that are less certain than they look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from luthier.metrics import figure
from luthier.report import ComparisonReport, JudgeReport
from luthier.trial import JobState, TrialState, rung_name
from search.format import count
from search.policy.ranking import DEFAULT
from search.report.inputs import Case, Tried

FEW_TEST_ROWS: Final = 50
FEW_DESIGNS: Final = 5
SEEDS: Final = 3  # with fewer, the spread between seeds means little


def missing(case: Case) -> Iterator[str]:
    """Yield a sentence for each result that is missing, and why."""
    done = sum(tried.past.state.terminal or tried.past.paused for tried in case.designs)
    match case.state:
        case JobState.VALIDATING_FILES | JobState.QUEUED:
            yield "The job has not started yet."
        case JobState.RUNNING:
            yield (
                f"The job is still running: {done} of {count(case.search.trials, 'trial')} have ended or are "
                "paused. The results may change."
            )
            if any(tried.past.confirms is not None for tried in case.tried):
                yield "The best designs are being repeated with other seeds."
        case JobState.CANCELLED:
            yield f"The job was cancelled after {done} of {count(case.search.trials, 'trial')}."
        case JobState.FAILED:
            yield f"The job failed: {case.error or 'no reason was recorded'}."
        case JobState.SUCCEEDED:
            pass
    won = case.winner
    if won is None:
        yield "No design was trained to the end, so there is no winner and no comparison."
        return
    if case.base is None:
        yield "The untuned base was not scored, so the gain from training is unknown."
    if case.default is None:
        yield _without_default(case)
    if not case.scores(won.number):
        yield "The winner has no scores on the test rows, so significance and forgetting are unknown."
    elif case.base is not None and not case.scores(case.base.number):
        yield "The untuned base has no scores on the test rows, so the significance of the difference is unknown."
    finalists = [tried for tried in case.ranked if tried.number != DEFAULT][: case.search.finalists]
    wanted = case.search.confirmations + 1
    short = [tried.number for tried in finalists if len(case.seeds(tried.number)) < wanted]
    if short and wanted > 1:
        trials = f"{'trial' if len(short) == 1 else 'trials'} {', '.join(map(str, short))}"
        yield f"Trained with fewer than the planned {wanted} seeds: {trials}."


def _without_default(case: Case) -> str:
    default = case.by_number.get(DEFAULT)
    if case.state.terminal or default is None or default.past.state.terminal:
        return "The plain-LoRA default was not trained to the end, so the gain from the search is unknown."
    place = f"paused at {rung_name(default.past.design, len(default.past.measured) - 1)}"
    where = place if default.past.paused else "not complete yet"
    return (
        f"The plain-LoRA default (trial {DEFAULT}) is {where}. It is trained to the end at the end of the search; the "
        "gain from the search is not known before."
    )


def weaknesses(case: Case, judged: JudgeReport, compared: Sequence[ComparisonReport]) -> Iterator[str]:
    """Yield a sentence for each reason to trust the results less."""
    won = case.winner
    if won is None:
        return
    rows = min([judged.test_rows, *[one.rows for one in compared]])
    if rows < FEW_TEST_ROWS:
        tested = count(rows, "test row")
        yield f"Only {tested}: the confidence intervals are wide, and the true uncertainty is slightly larger still."
    elif judged.test_rows < case.rows[2]:
        yield f"Only the first {judged.test_rows} of {case.rows[2]} test rows were scored."
    seeds = len(case.seeds(won.number))
    if seeds == 1:
        yield "The winner was trained with one seed, so the intervals do not include the variance between seeds."
    elif seeds < SEEDS:
        yield f"The winner was trained with only {count(seeds, 'seed')}."
    lone = [one for one in compared if one.against != "untuned base" and one.seeds[1] == 1 and one.seeds[0] > 1]
    for one in lone:
        yield f"The {one.against} was trained with only one seed."
    for one in compared:
        if one.against == "runner-up" and one.verdict == "not distinguishable":
            yield f"The winner is not significantly different from the runner-up (trial {one.number}) on the test rows."
    equal = [tried.number for tried in case.ranked[1:] if case.comparable(tried) == case.comparable(won)]
    if equal:
        numbers = ", ".join(map(str, equal))
        others = f"{'Trial' if len(equal) == 1 else 'Trials'} {numbers}"
        yield f"{others} reached the same validation score as the winner. The winner was chosen for its lower cost."
    yield from _shrunk(case, won, compared)
    trained = [tried for tried in case.designs if tried.past.design.stages]
    if len(trained) < FEW_DESIGNS:
        yield f"The search tried only {count(len(trained), 'design')} besides the untuned base."
    broken = [tried for tried in case.tried if tried.past.state is TrialState.FAILED]
    if broken:
        yield f"{len(broken)} of {count(len(case.tried), 'trial')} failed, so not every design was evaluated."


def _shrunk(case: Case, won: Tried, compared: Sequence[ComparisonReport]) -> Iterator[str]:
    """Report selection bias: a lead on the rows that chose the winner that mostly disappears on the test rows."""
    against = next((one for one in compared if one.against == "plain-LoRA default"), None)
    if against is None:
        return
    mine, theirs = case.pair(won, case.by_number[against.number])
    lead = abs(mine - theirs)
    better = (against.difference < 0) == case.lower_is_better
    tested = abs(against.difference) if better else -abs(against.difference)
    if lead > 0 and tested < lead / 2:
        yield (
            f"The lead over the plain-LoRA default is {figure(lead)} {case.unit} on the validation rows, but "
            f"{figure(tested)} on the test rows. The validation rows chose the winner, so their lead is biased upwards."
        )
