"""Build the report of a job: a pure function of its stored rows.

The winner is chosen on the validation rows. Its significance is measured on the test rows, which the search never used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from luthier.api_types import Recommendation
from luthier.design import distinct
from luthier.metrics import figure, seeds_count
from luthier.metrics import named as metric_named
from luthier.report import (
    AnswersReport,
    AxisReport,
    BudgetReport,
    ComparisonReport,
    ForgettingReport,
    FrontReport,
    JudgeReport,
    OriginReport,
    RejectedReport,
    Report,
    ScoreReport,
    SeedScore,
    SeedsReport,
    TaskReport,
    TriedReport,
    WinnerReport,
)
from luthier.trial import JobState, TrialState, rung_name
from search.format import count, seconds
from search.policy.scheduler import full_training_seconds
from search.report import pareto, phrases, resolution
from search.report.caveats import missing, weaknesses
from search.report.importance import importance
from search.report.inputs import Case, Tried
from search.report.next_steps import next_steps
from search.report.recommend import RELATION, chosen, comparisons, recommend, size

Role = Literal["recommended", "winner", "plain-LoRA default", "untuned base"]

LITTLE, NOTABLE, MUCH = 0.01, 0.05, 0.2  # relative increase of bits per byte on general text: degrees of forgetting


def explain(case: Case) -> Report:
    """Return the report of a job in any state."""
    worths = tuple(AxisReport(**dict(worth)) for worth in importance(case.history, case.facts))
    compared = tuple(comparisons(case))
    judged = _judge(case, compared)
    recommendation = recommend(case, compared)
    named = chosen(case, recommendation)
    summaries = distinct([tried.past.design for tried in case.tried])
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
        recommendation=recommendation,
        scores=tuple(_scores(case, named, recommendation)),
        answers=_answers(case, named),
        seeds=tuple(_seeds(case)),
        forgetting=_forgetting(case),
        axes=worths,
        front=tuple(front(case)),
        tried=tuple(_tried(case, tried, words) for tried, words in zip(case.tried, summaries, strict=True)),
        rejected=tuple(
            RejectedReport(number=tried.number, summary=summary, words=why)
            for tried, summary in zip(case.tried, summaries, strict=True)
            if (why := _why_rejected(case, tried)) is not None
        ),
        weaknesses=tuple(weaknesses(case, judged, compared)),
        next_steps=next_steps(case, compared),
    )


def _headline(case: Case, compared: Sequence[ComparisonReport]) -> str:
    won = case.winner
    if won is None:
        return {
            JobState.FAILED: "The job failed before any design was trained to the end.",
            JobState.CANCELLED: "The job was cancelled before any design was trained to the end.",
        }.get(case.state, "No design has been trained to the end yet.")
    best = "is the best design so far" if not case.state.terminal else "is the best design"
    seeds = seeds_count(len(case.seeds(won.number)))
    score = f"{figure(case.value(won))} {case.unit} on the validation rows ({seeds})"
    words = f"Trial {won.number} {best}: {won.past.design.summary()}, {score}."
    baselines: dict[str, list[str]] = {}
    for one in compared:
        if one.against != "runner-up":
            baselines.setdefault(RELATION[one.verdict], []).append(f"the {one.against}")
    found = [f"{relation} {' and '.join(names)}" for relation, names in baselines.items()]
    return f"{words} On the test rows it is {' and '.join(found)}." if found else words


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


def _judge(case: Case, compared: Sequence[ComparisonReport]) -> JudgeReport:
    judge = case.judge
    validation, test = (min(rows, judge.max_rows) for rows in case.rows[1:])
    if case.lower_is_better:
        likelihood = "pseudo-log-likelihood" if judge.family == "encoder" else "log-likelihood"
        measure = (
            f"Bits per byte: negative {likelihood} of the held-out target tokens, in bits, divided by the bytes of "
            "their text. Lower is better."
        )
    elif judge.environment is not None:
        measure = f"Mean reward of the environment {judge.environment.name} for greedy answers. Higher is better."
    elif judge.grader is not None:
        measure = f"Mean score of the grader {judge.grader.name} for greedy answers. Higher is better."
    else:
        measure = f"The {case.unit} on held-out rows. Higher is better."
    words = [
        measure,
        f"Scored on {count(validation, 'validation row')} to rank the designs, and on {count(test, 'test row')} for "
        "this report.",
    ]
    if case.splits > 1:
        words.append(
            f"The finalists and the default are ranked by their means over {case.splits} splits. A design that was not "
            "repeated, and the untuned base, are compared with them on the first split only. The test rows are the "
            "same for all."
        )
    if not case.lower_is_better and (judge.grader is not None or judge.environment is not None):
        words.append(f"At most the first {judge.max_generations} rows of each are answered and graded.")
    told = resolution.measured(compared)
    if told is not None:
        difference, against = told
        rows, seeds = count(against.rows, "test row"), " and ".join(map(seeds_count, against.seeds))
        words.append(
            f"The smallest difference that {rows} and these seeds ({seeds}) can tell is about {figure(difference)} "
            f"{case.unit}: half of the 95 % interval against the {against.against}."
        )
    return JudgeReport(
        objective=judge.objective,
        unit=case.unit,
        lower_is_better=case.lower_is_better,
        validation_rows=validation,
        test_rows=test,
        splits=case.splits,
        smallest_difference=None if told is None else told[0],
        words=tuple(words),
    )


def _budget(case: Case) -> BudgetReport:
    stopped = [tried for tried in case.designs if tried.stopped]
    spent = sum(tried.past.device_seconds for tried in case.tried)
    usual = full_training_seconds(case.history)
    scored = [tried for tried in stopped if tried.past.measured]
    whole = [tried.past.device_seconds / share if (share := tried.share) else usual for tried in scored]
    saved = sum(max(0.0, cost - tried.past.device_seconds) for cost, tried in zip(whole, scored, strict=True))
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
    repeats = sum(tried.past.confirms is not None for tried in case.tried)
    complete = sum(tried.complete for tried in case.designs)
    trained = [tried for tried in case.designs if tried.past.design.stages]
    paused = sum(tried.past.paused for tried in trained)
    found = {
        "trained to the end": sum(tried.complete for tried in trained),
        "stopped early": sum(tried.stopped for tried in trained) - paused,
        "paused": paused,
        "running or waiting": sum(tried.past.open for tried in trained),
    }
    found["failed or cancelled"] = len(trained) - sum(found.values())
    shown = ", ".join(f"{number} {how}" for how, number in found.items() if number)
    requested = count(case.search.trials - 1, "requested design")
    words = [f"{len(trained)} of {requested} tried besides the untuned base{f': {shown}' if shown else ''}."]
    budget_cut = sum(any(one.ended == "budget" for one in tried.lengths or ()) for tried in trained)
    if budget_cut:
        words.append(
            f"The budget cut the training of {count(budget_cut, 'design')}, which have the result of their best moment."
        )
    if repeats:
        where = " and on other splits of the rows" if case.splits > 1 else ""
        words.append(f"{count(repeats, 'repeat')} of the best designs with other seeds{where}.")
    limit = "" if case.search.device_seconds is None else f" of {seconds(case.search.device_seconds)} allowed"
    words.append(f"Device time: {seconds(spent)}{limit}.")
    if share is not None:
        words.append(
            f"Early stopping of {count(len(stopped), 'design')} saved about {seconds(saved)}, {share:.0%} of the time "
            "that training all designs to the end would have taken."
        )
    if case.ended is not None:
        words.append(f"The search ended: {case.ended}.")
    return BudgetReport(
        trials=case.search.trials,
        device_seconds=case.search.device_seconds,
        deadline=case.search.deadline,
        designs=len(case.designs),
        complete=complete,
        stopped=len(stopped),
        confirmations=repeats,
        spent=spent,
        by_origin=by_origin,
        saved=saved,
        saved_share=share,
        ended=case.ended,
        words=tuple(words),
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
        seeds=len(case.seeds(won.number)),
        metrics=won.metrics,
        test_metrics=won.test_metrics,
        parameters=size(case, won),
        device_seconds=won.past.device_seconds,
        axes=phrases.winner(case, won, worths),
    )


def _scores(case: Case, named: Tried | None, recommendation: Recommendation) -> Iterator[ScoreReport]:
    """Yield the metrics of the recommended trial, of the winner if that is another one, and of the baselines."""
    if recommendation.number is None and case.named is None:
        named = None  # it is merely the best so far
    shown: list[tuple[Role, Tried | None]] = [
        ("recommended", named),
        ("winner", case.winner),
        ("plain-LoRA default", case.default),
        ("untuned base", case.base),
    ]
    seen: set[int] = set()
    for role, tried in shown:
        metrics = None if tried is None else case.mean(tried.number)
        if tried is None or metrics is None or tried.number in seen:
            continue
        seen.add(tried.number)
        yield ScoreReport(
            number=tried.number,
            role=role,
            summary=tried.past.design.summary(),
            seeds=len(case.seeds(tried.number)) if tried.past.design.stages else None,
            metrics=metrics,
            test_metrics=case.mean_on_test(tried.number),
        )


def _answers(case: Case, named: Tried | None) -> AnswersReport | None:
    shown = case.winner if named is None or not named.past.design.stages else named
    found = () if shown is None else case.answers.get(shown.number, ())
    return None if shown is None or not found else AnswersReport(number=shown.number, answers=found)


def _seeds(case: Case) -> Iterator[SeedsReport]:
    repeated = {tried.past.confirms for tried in case.tried if tried.past.confirms is not None}
    shown = [tried for tried in case.ranked if tried.number in repeated or tried.scores is not None]
    for tried in shown:
        seeds = [
            SeedScore(
                trial=one.number,
                seed=one.seed,
                split=one.past.split,
                validation=case.shown(one.past.value),
                test=case.test_value(one),
            )
            for one in case.seeds(tried.number)
            if one.past.value is not None
        ]
        tested = [seed.test for seed in seeds if seed.test is not None]
        found = [value for one in case.seeds(tried.number) if (value := case.own_on_first_split(one)) is not None]
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
    general = metric_named("general_bits_per_byte")
    base, won = (
        [value for scores in case.scores(one.number) if (value := general.value(scores)) is not None]
        for one in (case.base, case.winner)
    )
    if not (base and won):
        return None
    before, after = sum(base) / len(base), sum(won) / len(won)
    change = after / before - 1 if before > 0 else 0.0
    if change < -LITTLE:
        meaning = "the winner has improved"
    elif change < LITTLE:
        meaning = "no measurable forgetting"
    elif change < NOTABLE:
        meaning = "slight forgetting"
    elif change < MUCH:
        meaning = "moderate forgetting. Test the model on its other tasks"
    else:
        meaning = "severe (catastrophic) forgetting. Use the model for this task only"
    words = (
        f"On general text, unrelated to the task, the untuned base has {figure(before)} {general.unit} and the winner "
        f"{figure(after)} ({change:+.1%}): {meaning}."
    )
    return ForgettingReport(base=before, winner=after, change=change, words=words)


def front(case: Case) -> Iterator[FrontReport]:
    """Yield the Pareto front of score, model size and training cost, over complete designs and the untuned base."""
    candidates = [*case.ranked, *([case.base] if case.base is not None else [])]
    prices = [
        pareto.Price(
            number=tried.number,
            value=case.comparable(tried),
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
            seeds=len(case.seeds(price.number)),
            parameters=price.parameters,
            device_seconds=price.device_seconds,
        )


def _tried(case: Case, tried: Tried, summary: str) -> TriedReport:
    past = tried.past
    score = past.value if tried.complete else past.measured[-1].value if past.measured else None
    own, own_test = None if score is None else case.shown(score), case.test_value(tried)
    mean, mean_test = own, own_test
    whole = tried.complete and past.confirms is None
    if whole:
        mean, mean_test = case.value(tried), case.metric.value(case.mean_on_test(tried.number))
    return TriedReport(
        number=tried.number,
        summary=summary,
        origin=tried.origin,
        state=state(tried),
        confirms=past.confirms,
        share=tried.share,
        score=own,
        test_score=own_test,
        mean_score=mean,
        mean_test_score=mean_test,
        seeds=len(case.seeds(tried.number)) if whole and past.design.stages else None,
        device_seconds=past.device_seconds,
    )


def state(tried: Tried) -> str:
    """Return a trial's state in words, such as `stopped at 1/9`."""
    past = tried.past
    if past.paused:
        return f"paused at {rung_name(past.design, len(past.measured) - 1)}"
    if tried.stopped and past.measured:
        return f"stopped at {rung_name(past.design, len(past.measured) - 1)}"
    return {TrialState.LEASED: "running", TrialState.PRUNED: "stopped"}.get(past.state, past.state.value)


def _why_rejected(case: Case, tried: Tried) -> str | None:
    """Why a trial is not a candidate for the winner; None if it is, or may still be."""
    reason = (tried.error or "no reason was recorded").rstrip(".")
    match tried.past.state:
        case TrialState.FAILED:
            return f"Failed: {reason}."
        case TrialState.INFEASIBLE:
            return f"{'Infeasible' if tried.launched else 'Not started'}: {reason}."
        case _ if tried.stopped and tried.past.measured and tried.past.confirms is None:
            rung = len(tried.past.measured) - 1
            rank, scored, promoted = case.rung_rank(tried)
            top = (
                f"the top {promoted} of all continue"
                if promoted > 1
                else f"{'only the first' if promoted else 'none'} continues"
            )
            place = rung_name(tried.past.design, rung)
            how = "Paused" if tried.past.paused else "Stopped"
            return f"{how} at {place}: {case.rung_score(tried)}, rank {rank} of {scored} ({top})."
        case TrialState.PRUNED:
            return "Stopped before its first score."
        case TrialState.CANCELLED:
            return f"Cancelled: {reason}." if tried.error else "Cancelled: the job was cancelled or its budget spent."
        case _:
            return None
