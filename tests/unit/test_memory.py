"""What past jobs tell of a new one: how alike jobs are, and what the surrogate makes of their trials."""

from collections.abc import Callable

import pytest

from luthier.design import Design, Full
from luthier.task import DataKind
from luthier.trial import TrialState
from search.features import features
from search.history import Past
from search.memory import Memory, Occasion, alikeness, remember
from search.priors import baselines
from search.propose import propose
from search.surrogate import NOISE, RUNG_NOISE, Seen, Surrogate, normal_scores
from tests.unit.search_samples import TINY, AtRandom, complete, samples, space_of

SPACE = space_of()
HIDDEN = {"tiny": TINY.facts.hidden_size}


def occasion(**changes: object) -> Occasion:
    known = {
        "kind": DataKind.PAIRS,
        "objective": "perplexity",
        "tokens": 10_000,
        "base": "tiny",
        "parameters": 2_000_000,
    }
    return Occasion.model_validate(known | changes)


def rate(design: Design) -> float:
    """In factors of four of the default."""
    return features(design, HIDDEN["tiny"]).numbers["learning_rate"]


def searched(value: Callable[[Design], float], count: int = 40) -> list[Past]:
    """A job's trials, scored by a function of the design."""
    return [complete(number, design, value(design)) for number, design in enumerate(samples(SPACE, count))]


def test_a_job_is_most_like_one_with_its_own_data_and_model() -> None:
    here = occasion()
    others = [occasion(tokens=100_000), occasion(base="smol"), occasion(parameters=134_000_000)]
    assert all(0 < alikeness(here, other) < alikeness(here, here) for other in others)


@pytest.mark.parametrize("other", [occasion(kind=DataKind.CHAT), occasion(objective="reward")])
def test_jobs_on_other_data_or_for_another_objective_tell_nothing(other: Occasion) -> None:
    assert alikeness(occasion(), other) == 0


def test_alikeness_goes_both_ways_and_falls_with_distance() -> None:
    sizes = [occasion(tokens=10**power) for power in range(3, 7)]
    falling = [alikeness(sizes[0], other) for other in sizes]
    assert falling == sorted(falling, reverse=True)
    assert alikeness(sizes[0], sizes[2]) == alikeness(sizes[2], sizes[0])


def test_only_scored_designs_of_known_models_are_remembered() -> None:
    designs = samples(SPACE, 3)
    history = [
        complete(0, Design(architecture=designs[0].architecture), 9.0),
        complete(1, designs[0], 2.0),
        complete(2, designs[1], 1.0),
        Past(number=3, design=designs[2], state=TrialState.FAILED),
    ]
    memory = remember(history, HIDDEN, alike=0.5)
    assert memory.ranked == (features(designs[1], HIDDEN["tiny"]), features(designs[0], HIDDEN["tiny"]))
    assert remember(history, {}, alike=0.5).ranked == ()


def test_the_surrogate_says_again_what_it_was_told_and_is_less_sure_elsewhere() -> None:
    seen = [features(design, HIDDEN["tiny"]) for design in samples(SPACE, 12)]
    surrogate = Surrogate(list(map(Seen, seen, normal_scores(12))), [1.0])
    mean_M, deviation_M = surrogate.predict(seen)
    assert sorted(range(12), key=lambda i: mean_M[i]) == list(range(12))
    strange = seen[0].model_copy(update={"numbers": seen[0].numbers | {"learning_rate": 30.0}})
    assert surrogate.predict([strange])[1][0] > max(deviation_M)


def test_trials_of_other_jobs_count_less_than_ones_own() -> None:
    seen = [features(design, HIDDEN["tiny"]) for design in samples(SPACE, 12)]

    def first(job: int, alike: float) -> float:
        told = [Seen(design, score, job=job) for design, score in zip(seen, normal_scores(12), strict=True)]
        return abs(Surrogate(told, [1.0, alike]).predict(seen)[0][0])

    assert first(0, 0.5) > first(1, 0.5) > first(1, 0.0) == 0.0


def test_what_is_known_from_a_rung_is_believed_less_than_what_is_known_from_the_end() -> None:
    design = features(samples(SPACE, 1)[0], HIDDEN["tiny"])
    believed = [
        abs(Surrogate([Seen(design, -1.0, noise)], [1.0]).predict([design])[0][0]) for noise in (NOISE, *RUNG_NOISE)
    ]
    end, first, second = believed
    assert end > second > first > 0.0


def test_the_first_proposals_follow_what_a_like_job_found() -> None:
    fast = remember(searched(lambda design: abs(rate(design) - 0.9)), HIDDEN, alike=0.9)
    slow = remember(searched(lambda design: abs(rate(design) + 0.9)), HIDDEN, alike=0.9)
    started = [complete(number, design, 5.0 - number) for number, design in enumerate(_baselines())]
    high, low = (propose(SPACE, started, seed=0, budget=24, memory=[memory]) for memory in (fast, slow))
    assert high is not None
    assert low is not None
    assert rate(high) > 0.3
    assert rate(low) < -0.3


def test_what_a_like_job_found_of_updates_is_believed() -> None:
    full_is_best = remember(searched(lambda design: design.stages[0].update.kind != "full", 160), HIDDEN, alike=0.8)
    history = [complete(number, design, 5.0 - number) for number, design in enumerate(_baselines())]
    first = propose(SPACE, history, seed=0, budget=24, memory=[full_is_best])
    assert first is not None
    assert isinstance(first.stages[0].update, Full)


def _baselines() -> list[Design]:
    return list(baselines(SPACE))


def test_memories_change_nothing_about_the_baselines() -> None:
    memory = Memory(alike=1.0, ranked=tuple(features(design, HIDDEN["tiny"]) for design in samples(SPACE, 5)))
    assert propose(SPACE, [], seed=0, budget=24, memory=[memory]) == _baselines()[0]
    assert isinstance(SPACE.sample(AtRandom(0)), Design)
