"""The report of a job: a pure function of its rows.

What is chosen is chosen on the validation rows; how sure it is, is told from the test rows, which no proposal saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from luthier.metrics import figure, named
from luthier.report import (
    AxisReport,
    BudgetReport,
    ComparisonReport,
    ForgettingReport,
    FrontReport,
    JudgeReport,
    OriginReport,
    RejectedReport,
    Report,
    SeedScore,
    SeedsReport,
    TaskReport,
    TriedReport,
    WinnerReport,
)
from luthier.trial import JobState, TrialState, rung_name
from search.format import count, seconds
from search.report import pareto, phrases
from search.report.caveats import missing, weaknesses
from search.report.importance import importance
from search.report.inputs import Case, Tried
from search.report.next_steps import next_steps
from search.report.recommend import comparisons, recommend, size

LITTLE, NOTABLE, MUCH = 0.01, 0.05, 0.2  # of what the general text's bits per byte rise by


def explain(case: Case) -> Report:
    """The report of a job that has ended in any way, or still runs."""
    worths = _axes(case)
    judged = _judge(case)
    compared = tuple(comparisons(case))
    return Report(
        job=case.job,
        status=case.state,
        fine_tuned_model=case.fine_tuned_model,
        created_at=case.created_at,
        finished_at=case.finished_at,
        headline=_headline(case, compared),
        missing=tuple(missing(case)),
        task=_task(case),
        judge=judged,
        budget=_budget(case),
        winner=_winner(case, worths),
        comparisons=compared,
        recommendation=recommend(case, compared),
        seeds=tuple(_seeds(case)),
        forgetting=_forgetting(case),
        axes=worths,
        front=tuple(front(case)),
        tried=tuple(_tried(case, tried) for tried in case.tried),
        rejected=tuple(_rejected(case)),
        weaknesses=tuple(weaknesses(case, judged, compared)),
        next_steps=next_steps(case, compared),
    )


def _headline(case: Case, compared: Sequence[ComparisonReport]) -> str:
    won = case.winner
    if won is None:
        return {
            JobState.FAILED: "The job failed, and no design was trained to its end.",
            JobState.CANCELLED: "The job was cancelled before any design was trained to its end.",
        }.get(case.state, "No design has been trained to its end yet.")
    best = "is the best so far" if not case.state.terminal else "is the best"
    score = f"{figure(case.value(won))} {case.unit} on the validation rows"
    said = f"Trial {won.number} {best}: {won.past.design.summary()}, {score}."
    yardsticks = [one for one in compared if one.against != "runner-up"]
    told = [
        f"{verdict} {'from' if verdict == 'not distinguishable' else 'than'} {' and '.join(names)}"
        for verdict in dict.fromkeys(one.verdict for one in yardsticks)
        if (names := [f"the {one.against}" for one in yardsticks if one.verdict == verdict])
    ]
    return f"{said} On the test rows it is {' and '.join(told)}." if told else said


def _task(case: Case) -> TaskReport:
    environment = case.task.environment
    train, validation, test = case.rows
    return TaskReport(
        kind=case.judge.kind,
        file=case.file if environment is None else None,
        environment=None if environment is None else environment.name,
        train_rows=train,
        validation_rows=validation,
        test_rows=test,
        models=tuple(dict.fromkeys(tried.past.design.architecture.base for tried in case.tried)),
        words=phrases.task(case),
    )


def _judge(case: Case) -> JudgeReport:
    judge = case.judge
    validation, test = (min(rows, judge.max_rows) for rows in case.rows[1:])
    if case.lower_is_better:
        likelihood = "pseudo-likelihood" if judge.family == "encoder" else "likelihood"
        measure = (
            f"Bits per byte are the {likelihood} of the held-out targets over the bytes of their text; less is better."
        )
    elif judge.environment is not None:
        measure = f"The reward of {judge.environment.name} for greedy answers; more is better."
    elif judge.grader is not None:
        measure = f"The mean grade ({judge.grader.name}) of greedy answers; more is better."
    else:
        measure = f"The {case.unit} on held-out rows; more is better."
    said = [
        measure,
        f"{count(validation, 'validation row')} chose, {count(test, 'test row')} were kept for this report.",
    ]
    if not case.lower_is_better and (judge.grader is not None or judge.environment is not None):
        said.append(f"Of each, the first {judge.max_generations} at most were answered and graded.")
    return JudgeReport(
        objective=judge.objective,
        unit=case.unit,
        lower_is_better=case.lower_is_better,
        validation_rows=validation,
        test_rows=test,
        words=tuple(said),
    )


def _budget(case: Case) -> BudgetReport:
    stopped = [tried for tried in case.designs if tried.stopped]
    spent = sum(tried.past.device_seconds for tried in case.tried)
    whole = {tried.number: tried.past.device_seconds / tried.share for tried in stopped if tried.share > 0}
    saved = sum(whole[tried.number] - tried.past.device_seconds for tried in stopped if tried.number in whole)
    designs = sum(tried.past.device_seconds for tried in case.designs)
    share = saved / (designs + saved) if saved > 0 else None
    origins = dict.fromkeys(tried.origin for tried in case.tried)
    by_origin = tuple(
        OriginReport(
            origin=origin,
            trials=sum(tried.origin == origin for tried in case.tried),
            device_seconds=sum(tried.past.device_seconds for tried in case.tried if tried.origin == origin),
        )
        for origin in origins
    )
    confirmations = sum(tried.past.confirms is not None for tried in case.tried)
    complete = sum(tried.complete for tried in case.designs)
    said = [
        f"{count(len(case.designs), 'design')} of {case.search.trials} asked for: {complete} trained to the end, "
        f"{len(stopped)} stopped at a rung"
        + (f"; {count(confirmations, 'training')} from other seeds to confirm the best." if confirmations else ".")
    ]
    limit = "" if case.search.device_seconds is None else f" of {seconds(case.search.device_seconds)} allowed"
    said.append(f"{seconds(spent)} of device time{limit}.")
    if share is not None:
        said.append(
            f"Stopping {count(len(stopped), 'design')} early saved about {seconds(saved)}: {share:.0%} of what all "
            "designs would have taken to their end."
        )
    if case.ended is not None:
        said.append(f"No further trial was started: {case.ended}.")
    return BudgetReport(
        trials=case.search.trials,
        device_seconds=case.search.device_seconds,
        deadline=case.search.deadline,
        designs=len(case.designs),
        complete=complete,
        stopped=len(stopped),
        confirmations=confirmations,
        spent=spent,
        by_origin=by_origin,
        saved=saved,
        saved_share=share,
        ended=case.ended,
        words=tuple(said),
    )


def _winner(case: Case, worths: Sequence[AxisReport]) -> WinnerReport | None:
    won = case.winner
    if won is None or won.metrics is None:
        return None
    return WinnerReport(
        trial=won.id,
        number=won.number,
        summary=won.past.design.summary(),
        design=won.past.design,
        score=case.value(won),
        metrics=won.metrics,
        test_metrics=won.test_metrics,
        parameters=size(case, won),
        device_seconds=won.past.device_seconds,
        axes=phrases.winner(case, won, worths),
    )


def _seeds(case: Case) -> Iterator[SeedsReport]:
    confirmed = {tried.past.confirms for tried in case.tried if tried.past.confirms is not None}
    shown = [tried for tried in case.ranked if tried.number in confirmed or tried.scores is not None]
    for tried in shown:
        seeds = [
            SeedScore(
                trial=one.number,
                seed=one.seed,
                validation=case.shown(one.past.value),
                test=case.test_value(one),
            )
            for one in case.seeds(tried.number)
            if one.past.value is not None
        ]
        tested = [seed.test for seed in seeds if seed.test is not None]
        found = [seed.validation for seed in seeds]
        yield SeedsReport(
            number=tried.number,
            summary=tried.past.design.summary(),
            seeds=tuple(seeds),
            validation_mean=case.value(tried),
            test_mean=sum(tested) / len(tested) if tested else None,
            spread=max(found) - min(found) if len(found) > 1 else None,
        )


def _forgetting(case: Case) -> ForgettingReport | None:
    if case.winner is None or case.base is None:
        return None
    general = named("general_bits_per_byte")
    base, won = (
        [value for scores in case.scores(one.number) if (value := general.value(scores)) is not None]
        for one in (case.base, case.winner)
    )
    if not (base and won):
        return None
    before, after = sum(base) / len(base), sum(won) / len(won)
    change = after / before - 1 if before > 0 else 0.0
    if change < -LITTLE:
        meaning = "it has even become better at it"
    elif change < LITTLE:
        meaning = "nothing that shows was forgotten"
    elif change < NOTABLE:
        meaning = "a little was forgotten"
    elif change < MUCH:
        meaning = "something was forgotten: try it on what else it has to do"
    else:
        meaning = "much was forgotten: it is now a model for this task only"
    said = (
        f"On a general text that the task is not about, the base needs {figure(before)} {general.unit} and the winner "
        f"{figure(after)} ({change:+.1%}): {meaning}."
    )
    return ForgettingReport(base=before, winner=after, change=change, words=said)


def _axes(case: Case) -> tuple[AxisReport, ...]:
    return tuple(AxisReport(**dict(worth)) for worth in importance(case.history, case.facts))


def front(case: Case) -> Iterator[FrontReport]:
    """The designs, and the untuned base, that no other beats in quality, size and training cost at once."""
    candidates = [*case.ranked, *([case.base] if case.base is not None else [])]
    prices = [
        pareto.Price(
            number=tried.number,
            value=case.value(tried) if case.lower_is_better else -case.value(tried),
            parameters=size(case, tried),
            device_seconds=tried.past.device_seconds,
        )
        for tried in candidates
    ]
    for price in pareto.front(prices):
        tried = case.by_number[price.number]
        yield FrontReport(
            number=price.number,
            summary=tried.past.design.summary(),
            score=case.value(tried),
            parameters=price.parameters,
            device_seconds=price.device_seconds,
        )


def _tried(case: Case, tried: Tried) -> TriedReport:
    past = tried.past
    score = past.value if tried.complete else past.measured[-1].value if past.measured else None
    return TriedReport(
        number=tried.number,
        summary=past.design.summary(),
        origin=tried.origin,
        state=state(tried),
        confirms=past.confirms,
        share=tried.share,
        score=None if score is None else case.shown(score),
        test_score=case.test_value(tried),
        device_seconds=past.device_seconds,
    )


def state(tried: Tried) -> str:
    """In words."""
    past = tried.past
    if past.paused:
        return f"paused at {rung_name(len(past.measured) - 1)}"
    if tried.stopped and past.measured:
        return f"stopped at {rung_name(len(past.measured) - 1)}"
    return {TrialState.LEASED: "running"}.get(past.state, past.state.value)


def _rejected(case: Case) -> Iterator[RejectedReport]:
    for tried in case.tried:
        if (why := _why_not(case, tried)) is not None:
            yield RejectedReport(number=tried.number, summary=tried.past.design.summary(), words=why)


def _why_not(case: Case, tried: Tried) -> str | None:
    """Why a trial is not in the running; None where it is."""
    reason = tried.error or "no reason was noted"
    match tried.past.state:
        case TrialState.FAILED:
            return f"It failed: {reason.rstrip('.')}."
        case TrialState.INFEASIBLE:
            how = "It cannot run" if tried.launched else "It was never launched"
            return f"{how}: {reason.rstrip('.')}."
        case _ if tried.stopped and tried.past.measured and tried.past.confirms is None:
            rung = len(tried.past.measured) - 1
            place, scored, places = case.place(tried)
            score = figure(case.shown(tried.past.measured[rung].value))
            go_on = (
                "the best one goes on" if places == 1 else f"the best {places} go on" if places else "none goes on yet"
            )
            how = "It pauses" if tried.past.paused else "It was stopped"
            where = f"place {place} of {scored}, of which {go_on}"
            return f"{how} after {rung_name(rung)} of its training: {score} {case.unit}, {where}."
        case TrialState.PRUNED:
            return "It was stopped before it was scored."
        case TrialState.CANCELLED:
            return f"It was cancelled{f': {tried.error}' if tried.error else ' with the job, or by its budget.'}"
        case _:
            return None
