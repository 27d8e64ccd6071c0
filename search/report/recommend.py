"""Compare the winner with its baselines on the test rows, and recommend what to use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from luthier.api_types import Recommendation
from luthier.metrics import figure, signed
from luthier.report import Baseline, ComparisonReport, Verdict
from luthier.trial import rung_name
from search.format import count, millions, seconds
from search.policy.ranking import DEFAULT
from search.report import bootstrap, pareto
from search.report.inputs import Case, Tried

# What a verdict says about the winner, before the name of the other design.
RELATION: Final[dict[Verdict, str]] = {
    "better beyond the noise": "significantly better than",
    "not distinguishable": "not significantly different from",
    "worse beyond the noise": "significantly worse than",
}


def verdict_label(verdict: Verdict) -> str:
    """Return a verdict as a label, such as `significantly better`."""
    return RELATION[verdict].rsplit(" ", 1)[0]


def comparisons(case: Case) -> Iterator[ComparisonReport]:
    """Compare the winner with the untuned base, the plain-LoRA default and the runner-up on the test rows.

    Comparisons are left out where one of the two has no scores, or the two were scored on different rows.
    """
    won = case.winner
    if won is None:
        return
    others: list[tuple[Baseline, Tried | None]] = [
        ("untuned base", case.base),
        ("plain-LoRA default", case.default),
        ("runner-up", case.runner_up),
    ]
    for against, other in others:
        if other is None or other.number == won.number:
            continue
        mine, theirs = case.scores(won.number), case.scores(other.number)
        if bootstrap.comparable(mine, theirs, case.judge.objective):
            yield _comparison(case, against, won, other)


def _comparison(case: Case, against: Baseline, won: Tried, other: Tried) -> ComparisonReport:
    mine, theirs = case.scores(won.number), case.scores(other.number)
    objective = case.judge.objective
    found = bootstrap.compare(mine, theirs, objective)
    scores = bootstrap.score(mine, objective), bootstrap.score(theirs, objective)
    ratio = found.perplexity_ratio
    difference, low, high = found.objective.difference, found.objective.low, found.objective.high
    words = (
        f"Trial {won.number} is {RELATION[found.verdict]} the {against} (trial {other.number}): {figure(scores[0])} "
        f"against {figure(scores[1])} {case.unit}, difference {signed(difference)} "
        f"(95 % interval {signed(low)} to {signed(high)})."
    )
    if ratio is not None:
        percent = [f"{100 * value:.1f}" for value in (ratio.difference, ratio.low, ratio.high)]
        words += f" Its perplexity is {percent[0]} % of the {against}'s (95 % interval {percent[1]}–{percent[2]} %)."
    return ComparisonReport(
        against=against,
        number=other.number,
        summary=other.past.design.summary(),
        winner_score=scores[0],
        other_score=scores[1],
        difference=difference,
        low=low,
        high=high,
        perplexity_ratio=None if ratio is None else (ratio.difference, ratio.low, ratio.high),
        verdict=found.verdict,
        rows=found.rows,
        seeds=found.seeds,
        words=words,
    )


def chosen(case: Case, recommendation: Recommendation | None = None) -> Tried | None:
    """Return the trial that the job's results stand for; None before a trial is complete.

    It is the one that the job named when it succeeded, else the recommended one, else the best on the validation rows.
    `recommendation`: what `recommend` returned, if it is known already.
    """
    if case.named is not None:
        return case.by_number[case.named]
    if recommendation is None:
        recommendation = recommend(case, tuple(comparisons(case)))
    if recommendation.number is not None:
        return case.by_number[recommendation.number]
    return case.winner or case.base


def recommend(case: Case, compared: Sequence[ComparisonReport]) -> Recommendation:
    """Recommend the winner if it is significantly better than both baselines.

    Otherwise recommend the base if the winner does not beat it, else the cheaper of the winner and the LoRA default.
    Where the job already names another trial as its result, the last sentence says so.
    """
    found = _recommend(case, compared)
    if case.named is None or found.number in (None, case.named):
        return found
    words = f"The model that the job names is still trial {case.named}, which was chosen when it ended."
    return found.model_copy(update={"words": (*found.words, words)})


def _recommend(case: Case, compared: Sequence[ComparisonReport]) -> Recommendation:
    won = case.winner
    if won is None:
        unknown = "There is no recommendation: no design was trained to the end."
        if not case.state.terminal:
            unknown = "There is no recommendation yet: no design is complete."
        trained = [tried for tried in case.designs if tried.past.design.stages]
        return Recommendation(take=None, number=None, words=(unknown, *_best_paused(case, trained)))
    by_name = {one.against: one for one in compared}
    base, default, runner_up = (by_name.get(name) for name in ("untuned base", "plain-LoRA default", "runner-up"))
    so_far = "" if case.state.terminal else "So far: "
    if base is None:
        words: tuple[str, ...] = (
            f"{so_far}Trial {won.number} is the best design on the validation rows.",
            "There is no recommendation, because the test rows do not show whether it is better than the untuned base.",
        )
        return Recommendation(take=None, number=None, words=words)
    if base.rows < bootstrap.LEAST_ROWS and _better(case, won, case.by_number[base.number]):
        words = (
            f"{so_far}Trial {won.number} is the best design on the validation rows.",
            f"There is no recommendation, because {count(base.rows, 'test row')} cannot show whether it is better than "
            f"the untuned base; at least {bootstrap.LEAST_ROWS} could.",
        )
        return Recommendation(take=None, number=None, words=words)
    if base.verdict != "better beyond the noise":
        words = (
            f"{so_far}Use the untuned base. The best design, trial {won.number}, is {RELATION[base.verdict]} it on the "
            "test rows.",
        )
        return Recommendation(take="untuned base", number=base.number, words=words)
    if won.number == DEFAULT:
        search = _searched(case)
        words = (
            f"{so_far}Use trial {won.number}, the plain-LoRA default. It is significantly better than the untuned "
            f"base. {search}",
        )
        return Recommendation(take="winner", number=won.number, words=words)
    if default is not None and default.verdict != "better beyond the noise":
        return _cheaper(case, won, default, so_far)
    than = "the untuned base" if default is None else "the untuned base and the plain-LoRA default"
    advice = [f"{so_far}Use trial {won.number}: it is significantly better than {than}."]
    if default is None and case.state.terminal:
        advice.append("It could not be compared with the plain-LoRA default.")
    elif default is None:
        advice.append("It has not been compared with the plain-LoRA default yet.")
    if runner_up is not None and runner_up.verdict == "not distinguishable":
        other = case.by_number[runner_up.number]
        cheaper = _cost(case, other) < _cost(case, won)
        advice.append(
            f"The runner-up, trial {other.number}, is not significantly different"
            + (f", but cheaper: {_price(case, other)}, against {_price(case, won)}." if cheaper else ".")
        )
    return Recommendation(take="winner", number=won.number, words=tuple(advice))


def _better(case: Case, one: Tried, other: Tried) -> bool:
    """Return whether a design has the better mean on the validation rows."""
    return case.metric.sign * case.value(one) < case.metric.sign * case.value(other)


def _searched(case: Case) -> str:
    """Return what the search found besides the default, where none of its complete designs is better."""
    others = [tried for tried in case.designs if tried.past.design.stages and tried.number != DEFAULT]
    if case.state.terminal:
        return "No design of the search was better." if others else "No other design was tried."
    words = "The search is still running: " + (
        "no complete design is better yet." if others else "no other design yet."
    )
    return " ".join((words, *_best_paused(case, others)))


def _best_paused(case: Case, among: Sequence[Tried]) -> tuple[str, ...]:
    """Return a sentence on the best one of the paused designs, if there are any."""
    paused = [tried for tried in among if tried.past.paused]
    if not paused:
        return ()
    best = min(paused, key=lambda tried: (-len(tried.past.measured), tried.past.measured[-1].rank_key))
    place = rung_name(best.past.design, len(best.past.measured) - 1)
    return (
        f"{count(len(paused), 'design')} paused, of which trial {best.number} is the best: {case.rung_score(best)} at "
        f"{place}, on fewer rows.",
    )


def _cheaper(case: Case, won: Tried, default: ComparisonReport, so_far: str) -> Recommendation:
    """Choose between the winner and a plain-LoRA default that the winner does not beat."""
    other = case.by_number[default.number]
    worse = default.verdict == "worse beyond the noise"
    take_default = worse or _cost(case, other) <= _cost(case, won)
    chosen = f"the plain-LoRA default (trial {other.number})" if take_default else f"trial {won.number}"
    reason = "." if worse else f", and {'the default' if take_default else f'trial {won.number}'} is cheaper."
    words = [
        f"{so_far}Use {chosen}. Trial {won.number} is significantly better than the untuned base, but "
        f"{RELATION[default.verdict]} the plain-LoRA default{reason}",
        f"Cost of the default: {_price(case, other)}. Cost of trial {won.number}: {_price(case, won)}.",
    ]
    if take_default:
        words.append("To train the default alone, start a job with 2 trials and the same pinned base model.")
    return Recommendation(
        take="plain-LoRA default" if take_default else "winner",
        number=other.number if take_default else won.number,
        words=tuple(words),
    )


def _cost(case: Case, tried: Tried) -> tuple[float, float]:
    """Sort key: first the size of the model, which is paid at each use, then the training time, which is paid once."""
    return float(size(case, tried) or 0), tried.past.device_seconds


def _price(case: Case, tried: Tried) -> str:
    used = size(case, tried)
    training = f"{seconds(tried.past.device_seconds)} of training"
    return training if used is None else f"{training} and {millions(used)} parameters"


def size(case: Case, tried: Tried) -> int | None:
    """Return the number of parameters of the trained model; None if its base model is no longer registered."""
    facts = case.facts.get(tried.past.design.architecture.base)
    return None if facts is None else pareto.parameters(tried.past.design, facts)
