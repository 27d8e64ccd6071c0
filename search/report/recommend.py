"""The winner against its yardsticks on the test rows, and what follows from that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from luthier.metrics import figure, signed
from luthier.report import Baseline, ComparisonReport, Recommendation
from search.format import millions, seconds
from search.policy.ranking import DEFAULT
from search.report import bootstrap, pareto
from search.report.inputs import Case, Tried


def comparisons(case: Case) -> Iterator[ComparisonReport]:
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
    said = (
        f"{figure(scores[0])} against {figure(scores[1])} {case.unit} of the {against} (trial {other.number}): "
        f"{signed(difference)}, 95 % interval {signed(low)} to {signed(high)}"
    )
    if ratio is not None:
        said += f"; perplexity × {ratio.difference:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
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
        words=f"{said}: {found.verdict}.",
    )


def recommend(case: Case, compared: Sequence[ComparisonReport]) -> Recommendation:
    """The winner where it is better than both yardsticks beyond the noise, else the cheapest that is as good."""
    won = case.winner
    if won is None:
        return Recommendation(take=None, number=None, words=("There is nothing to recommend yet.",))
    by_name = {one.against: one for one in compared}
    base, default, runner_up = (by_name.get(name) for name in ("untuned base", "plain-LoRA default", "runner-up"))
    so_far = "" if case.state.terminal else "So far: "
    if base is None:
        best = f"{so_far}Trial {won.number} is the best on the validation rows"
        said = f"{best}; the test rows do not tell how sure that is."
        return Recommendation(take=None, number=None, words=(said,))
    if base.verdict != "better beyond the noise":
        how = "worse than" if base.verdict == "worse beyond the noise" else "not better than"
        said = (
            f"{so_far}Use the untuned base as it is. The best design is {how} it beyond the noise of the test rows, "
            "and the base costs no training."
        )
        return Recommendation(take="untuned base", number=base.number, words=(said,))
    said = f"{so_far}Trial {won.number} is better than the untuned base beyond the noise"
    if won.number == DEFAULT:
        return Recommendation(
            take="winner",
            number=won.number,
            words=(f"{said}. It is the plain-LoRA default itself: no search was needed.",),
        )
    if default is not None and default.verdict != "better beyond the noise":
        return _cheaper(case, won, default, said)
    also = " and better than the plain-LoRA default" if default is not None else ", with no default to compare it with"
    closing = [f"{said}{also}: use trial {won.number}."]
    if runner_up is not None and runner_up.verdict == "not distinguishable":
        other = case.by_number[runner_up.number]
        cheaper = _cost(case, other) < _cost(case, won)
        closing.append(
            f"The runner-up, trial {other.number}, cannot be told apart from it"
            + (f" and is cheaper: {_price(case, other)} against {_price(case, won)}." if cheaper else ".")
        )
    return Recommendation(take="winner", number=won.number, words=tuple(closing))


def _cheaper(case: Case, won: Tried, default: ComparisonReport, said: str) -> Recommendation:
    other = case.by_number[default.number]
    if default.verdict == "worse beyond the noise":
        verdict, take_default = "but worse than the plain-LoRA default: use the default", True
    else:
        take_default = _cost(case, other) <= _cost(case, won)
        verdict = "but not better than the plain-LoRA default: use the cheaper of the two, " + (
            "the default" if take_default else f"trial {won.number}"
        )
    prices = f"The default takes {_price(case, other)}, trial {won.number} {_price(case, won)}."
    how = (
        ("A job with two trials and the same pins on the base model trains the default alone.",) if take_default else ()
    )
    return Recommendation(
        take="plain-LoRA default" if take_default else "winner",
        number=other.number if take_default else won.number,
        words=(f"{said}, {verdict}.", prices, *how),
    )


def _cost(case: Case, tried: Tried) -> tuple[float, float]:
    """What is paid for as long as the model is used stands before what was paid once."""
    return float(size(case, tried) or 0), tried.past.device_seconds


def _price(case: Case, tried: Tried) -> str:
    used = size(case, tried)
    training = f"{seconds(tried.past.device_seconds)} of training"
    return training if used is None else f"{training} for a model of {millions(used)} parameters"


def size(case: Case, tried: Tried) -> int | None:
    facts = case.facts.get(tried.past.design.architecture.base)
    return None if facts is None else pareto.parameters(tried.past.design, facts)
