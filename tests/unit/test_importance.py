"""What an axis was worth: its share of the variance of ranks, and what staying at the default would have cost."""

import random

import pytest

from luthier.algorithms import Sft
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.task import DataKind
from luthier.trial import TrialState
from luthier.updates import Full, Lora, Update
from search.policy.history import Past
from search.policy.priors import baselines
from search.report.importance import BLOCK, Worth, axes_of, importance, relative_ranks
from search.space.learning_rate import default_learning_rate
from tests.unit.search_samples import TINY, complete, samples, scored, space_of

FACTS = {"tiny": TINY.facts}


def design(update: Update, *, rate: float = 1.0, batch: int = 8, layers: int | None = None) -> Design:
    usual = default_learning_rate("sft", update.kind, TINY.facts.hidden_size)
    optimiser = Optimiser(learning_rate=usual * rate, batch_size=batch)
    stage = Stage(algorithm=Sft(), update=update, optimiser=optimiser)
    return Design(architecture=Architecture(base="tiny", layers=layers), stages=(stage,))


UNTUNED, DEFAULT = Design(architecture=Architecture(base="tiny")), design(Lora(rank=16))


def worths(history: list[Past]) -> dict[str, Worth]:
    return {worth.axis: worth for worth in importance(history, FACTS)}


def started(*others: Past, default: float = 2.0) -> list[Past]:
    return [complete(0, UNTUNED, 3.0), complete(1, DEFAULT, default), *others]


def test_an_axis_that_decides_everything_explains_everything_and_one_that_does_nothing_nothing() -> None:
    draw = random.Random(1)
    history = started()
    for number in range(2, 42):
        full = number % 2 == 0
        update: Update = Full() if full else Lora(rank=16)
        batch = draw.choice([4, 8, 16])
        history.append(complete(number, design(update, batch=batch), 1.0 if full else 2.0))
    found = worths(history)
    assert found["weight update"].share == pytest.approx(1.0)
    assert found["batch size"].share is not None
    assert found["batch size"].share < 0.15
    assert (found["weight update"].trials, found["weight update"].weak) == (41, False)


def test_a_number_with_a_best_value_in_the_middle_is_seen() -> None:
    history = started()
    for number in range(2, 40):
        rate = 0.2 * 1.09 ** (number - 2)
        history.append(complete(number, design(Lora(rank=16), rate=rate), 1.0 + abs(rate - 1.0)))
    found = worths(history)
    assert found["learning rate"].share is not None
    assert found["learning rate"].share > 0.3


def test_what_staying_at_the_default_would_have_cost() -> None:
    history = started(
        complete(2, design(Full()), 1.0),
        complete(3, design(Lora(rank=64)), 1.4),
        complete(4, design(Lora(rank=16), batch=4), 1.7),
    )
    found = worths(history)
    update, rank, batch = found["weight update"], found["rank"], found["batch size"]
    assert (update.default, update.best, update.worth) == ("lora", "full", pytest.approx(0.4))
    # A design that has no rank has not departed from the default's.
    assert (rank.default, rank.best, rank.worth) == ("16", None, 0.0)
    assert (batch.default, batch.best, batch.worth) == ("8", "8", 0.0)


def test_what_staying_would_have_cost_is_a_difference_of_means_over_seeds() -> None:
    def repeat(number: int, of: Past, value: float) -> Past:
        return complete(number, of.design, value).model_copy(update={"confirms": of.number})

    won, lora = complete(2, design(Full()), 1.0), complete(3, design(Lora(rank=64)), 1.5)
    history = started(won, lora, repeat(4, won, 1.2), repeat(5, lora, 1.9))
    assert worths(history)["weight update"].worth == pytest.approx(1.7 - 1.1)


def test_axes_are_in_the_order_of_the_four_axes() -> None:
    groups = [worth.group for worth in importance(started(complete(2, design(Full(), layers=5), 1.0)), FACTS)]
    assert list(dict.fromkeys(groups)) == [
        "learning algorithm",
        "weight update",
        "architecture",
        "hyperparameters",
    ]


def test_a_paused_trial_counts_by_its_standing_where_both_were_scored_last() -> None:
    history = [
        complete(1, DEFAULT, 1.0).model_copy(update={"measured": scored(5.0, 3.0)}),
        complete(2, design(Full()), 1.2).model_copy(update={"measured": scored(4.0, 2.0)}),
        paused(3, design(Full(), batch=4), 4.5),
        paused(4, design(Full(), batch=16), 4.4, 2.5),
    ]
    # 1 beats 2 at the end, 2 beats 4 at the second rung, 4 beats 1 there and 3 at the first, where 3 beats 1
    assert relative_ranks(history) == {
        1: pytest.approx(2 / 3),
        2: pytest.approx(1 / 3),
        3: pytest.approx(2 / 3),
        4: 1 / 3,
    }


def test_of_many_designs_each_is_compared_with_all_others() -> None:
    count = BLOCK + 2
    history = [complete(number, design(Full()), float(number)) for number in range(1, count + 1)]
    assert relative_ranks(history) == {
        number: pytest.approx((number - 1) / (count - 1)) for number in range(1, count + 1)
    }


def paused(number: int, design: Design, *values: float) -> Past:
    return Past(number=number, design=design, state=TrialState.WAITING, goal=len(values) - 1, measured=scored(*values))


def test_what_was_never_scored_has_no_standing() -> None:
    failed = Past(number=2, design=design(Full()), state=TrialState.FAILED)
    again = complete(3, DEFAULT, 1.1).model_copy(update={"confirms": 1})
    assert relative_ranks(started(failed, again)) == {1: 0.5}


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_trials_are_said_to_be_weak(count: int) -> None:
    history = started(*[complete(n, design(Full(), batch=n), 1.0) for n in range(2, 2 + count)])
    for worth in importance(history, FACTS):
        assert worth.weak
        assert worth.share is None or 0 <= worth.share <= 1


def test_nothing_scored_means_nothing_to_say() -> None:
    assert importance([], FACTS) == []
    assert importance([Past(number=1, design=DEFAULT, state=TrialState.FAILED)], FACTS) == []


def test_equal_scores_explain_nothing() -> None:
    history = started(*[complete(n, design(Full(), batch=2 ** (n % 4)), 2.0) for n in range(2, 20)])
    assert all(worth.share is None and worth.worth in (0.0, None) for worth in importance(history, FACTS))


@pytest.mark.parametrize("kind", [DataKind.PAIRS, DataKind.PREFERENCE, DataKind.PROMPTS, DataKind.UNPAIRED])
def test_every_design_of_a_space_has_its_axes_conditional_ones_or_not(kind: DataKind) -> None:
    space = space_of(kind)
    drawn = samples(space, 60)
    history = [complete(n, one, random.Random(n).random()) for n, one in enumerate([*baselines(space), *drawn])]
    found = importance(history, FACTS)
    assert {"learning algorithm", "weight update", "edits", "learning rate", "batch size"} <= {w.axis for w in found}
    assert all(worth.trials <= 61 for worth in found)
    for one in drawn:
        assert axes_of(one, FACTS)["learning rate"] == pytest.approx(
            space.encode(one)["learning_rate_multiplier"], rel=0.06
        )


def test_a_base_that_is_no_longer_known_has_no_relative_learning_rate() -> None:
    assert "learning rate" not in axes_of(DEFAULT, {})
