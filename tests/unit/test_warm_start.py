"""The warm start: how similar two jobs are, which designs a past job passes on, and when these are tried."""

import math

import pytest

from luthier.design import Design, Schedule
from luthier.task import DataKind, Pin
from luthier.trial import TrialState
from search.policy.features import features
from search.policy.history import Past
from search.policy.priors import baselines, priors
from search.policy.propose import origin, propose
from search.policy.surrogate import NOISE, RUNG_NOISE, Observation, Surrogate, normal_scores
from search.policy.warm_start import (
    DESIGNS_PER_JOB,
    MAX_DESIGNS,
    JobContext,
    SimilarJob,
    first_designs,
    similar_job,
    similarity_of,
)
from search.space.learning_rate import default_learning_rate
from tests.unit.search_samples import SMOL, TINY, complete, samples, space_of

SPACE, FIXED = space_of(), space_of(schedule="cosine")
UNTUNED, DEFAULT = baselines(SPACE)
HIDDEN = {"tiny": TINY.facts.hidden_size}


def context(**changes: object) -> JobContext:
    known = {
        "kind": DataKind.PAIRS,
        "objective": "perplexity",
        "tokens": 10_000,
        "base": "tiny",
        "parameters": 2_000_000,
    }
    return JobContext.model_validate(known | changes)


def job(*designs: Design, similarity: float = 0.8) -> SimilarJob:
    return SimilarJob(similarity=similarity, best=designs, hidden_sizes=HIDDEN)


def plain(count: int) -> list[Design]:
    """Designs of the space that leave the base as it is, none of them a baseline or a prior."""
    known = {DEFAULT.digest(), *(design.digest() for design in priors(SPACE))}
    drawn = {design.digest(): design for design in samples(SPACE, 200) if not design.architecture.edited}
    return [design for digest, design in drawn.items() if digest not in known][:count]


def test_a_job_is_most_like_one_with_its_own_data_and_model() -> None:
    ctx = context()
    others = [context(tokens=100_000), context(base="smol"), context(parameters=134_000_000)]
    assert all(0 < similarity_of(ctx, other) < similarity_of(ctx, ctx) for other in others)


@pytest.mark.parametrize("other", [context(kind=DataKind.CHAT), context(objective="reward")])
def test_jobs_with_another_kind_of_data_or_objective_are_not_similar(other: JobContext) -> None:
    assert similarity_of(context(), other) == 0


def test_similarity_is_symmetric_and_falls_with_distance() -> None:
    sizes = [context(tokens=10**power) for power in range(3, 7)]
    falling = [similarity_of(sizes[0], other) for other in sizes]
    assert falling == sorted(falling, reverse=True)
    assert similarity_of(sizes[0], sizes[2]) == similarity_of(sizes[2], sizes[0])


def test_a_job_passes_on_its_best_designs() -> None:
    designs = plain(5)
    history = [complete(0, UNTUNED, 9.0), complete(1, DEFAULT, 5.0)]
    history += [complete(number, design, float(number)) for number, design in enumerate(designs[:2], 2)]
    history += [complete(4, designs[2], 1.0), Past(number=5, design=designs[3], state=TrialState.FAILED)]
    assert similar_job(history, HIDDEN, similarity=0.5).best == (designs[2], designs[0])
    assert DESIGNS_PER_JOB == 2
    assert similar_job(history, {}, similarity=0.5).best == (), "the base model is no longer registered"


def test_designs_that_ranked_below_the_default_are_not_passed_on() -> None:
    better, worse = plain(2)
    history = [complete(1, DEFAULT, 2.0), complete(2, better, 1.0), complete(3, worse, 3.0)]
    assert similar_job(history, HIDDEN, similarity=0.5).best == (better,)
    assert similar_job([history[0], history[2]], HIDDEN, similarity=0.5).best == ()
    assert similar_job([history[2]], HIDDEN, similarity=0.5).best == (worse,), "where the default itself has failed"


def test_the_warm_start_is_tried_right_after_the_baselines() -> None:
    first, second = plain(2)
    similar_jobs = [job(first, second)]
    history: list[Past] = []
    for number in range(6):
        design = propose(SPACE, history, seed=0, trials=24, similar_jobs=similar_jobs)
        assert design is not None
        history.append(complete(number, design, float(number)))
    tried = [past.design for past in history]
    assert tried == [UNTUNED, DEFAULT, first, second, *priors(SPACE)[:2]]
    origins = [origin(SPACE, design, similar_jobs) for design in tried]
    assert origins == ["baseline", "baseline", "memory", "memory", "prior", "prior"]


def test_the_most_similar_jobs_come_first_and_no_job_takes_all_slots() -> None:
    near, nearer, far, farther, *rest = plain(8)
    jobs = [job(far, farther, similarity=0.3), job(near, nearer, similarity=0.8)]
    assert first_designs(SPACE, jobs) == [near, nearer, far, farther]
    even = [job(near, far, similarity=0.5), job(nearer, farther, similarity=0.5)]
    assert first_designs(SPACE, even) == [near, nearer, far, farther]
    assert first_designs(SPACE, [job(near), job(near)]) == [near]
    assert len(first_designs(SPACE, [*jobs, job(*rest[:2]), job(*rest[2:])])) == MAX_DESIGNS


def test_a_small_budget_is_not_spent_on_past_designs() -> None:
    first, second = plain(2)
    history = [complete(number, design, 1.0) for number, design in enumerate((UNTUNED, DEFAULT, first))]
    assert propose(SPACE, history, seed=0, trials=4, similar_jobs=[job(first, second)]) not in (second, None)


def test_designs_that_pins_exclude_are_not_tried() -> None:
    pinned = space_of(pin=Pin(update=("lora",)))
    forbidden = next(design for design in plain(50) if design.stages[0].update.kind != "lora")
    assert first_designs(pinned, [job(forbidden)]) == []


def test_on_another_base_model_rates_keep_their_distance_from_the_default() -> None:
    design = plain(1)[0]
    (there,) = first_designs(space_of(models=(SMOL,)), [job(design)])
    assert there.architecture.base == "smol"
    assert there.recipe == design.recipe
    for one, other in zip(design.stages, there.stages, strict=True):
        assert other.update == one.update
        kinds = one.algorithm.kind, one.update.kind
        factors = [
            stage.optimiser.learning_rate / default_learning_rate(*kinds, model.facts.hidden_size)
            for stage, model in ((one, TINY), (other, SMOL))
        ]
        assert factors[0] == pytest.approx(factors[1], rel=0.01)


def test_an_edit_of_one_base_model_is_not_carried_to_another() -> None:
    edited = next(design for design in samples(SPACE, 200) if design.architecture.edited)
    assert first_designs(SPACE, [job(edited)]) == [edited]
    assert first_designs(space_of(models=(SMOL,)), [job(edited)]) == []


def test_the_warm_start_does_not_replace_the_baselines() -> None:
    assert propose(SPACE, [], seed=0, trials=24, similar_jobs=[job(*plain(2), similarity=1.0)]) == UNTUNED


def test_the_surrogate_reproduces_its_observations_and_is_less_certain_elsewhere() -> None:
    seen = [features(design, HIDDEN["tiny"]) for design in samples(SPACE, 12)]
    surrogate = Surrogate(list(map(Observation, seen, normal_scores(12))))
    mean_M, deviation_M = surrogate.predict(seen)
    assert list(mean_M) == pytest.approx(normal_scores(12), abs=2 * math.sqrt(NOISE))
    strange = seen[0].model_copy(update={"numbers": seen[0].numbers | {"learning_rate": 30.0}})
    assert surrogate.predict([strange])[1][0] > max(deviation_M)


def test_scores_at_rungs_count_less_than_final_scores() -> None:
    design = features(samples(SPACE, 1)[0], HIDDEN["tiny"])
    believed = [
        abs(Surrogate([Observation(design, -1.0, noise)]).predict([design])[0][0]) for noise in (NOISE, *RUNG_NOISE)
    ]
    end, first, second = believed
    assert end > second > first > 0.0


def with_length(design: Design, epochs: float, schedule: Schedule = "cosine") -> Design:
    changes = {"epochs": epochs, "schedule": schedule}
    stages = [
        stage.model_copy(update={"optimiser": stage.optimiser.model_copy(update=changes)}) for stage in design.stages
    ]
    return design.model_copy(update={"stages": tuple(stages)})


@pytest.mark.parametrize("epochs", [0.5, 8.0, 20.0])
def test_a_past_design_keeps_its_length_unless_the_new_job_pins_it(epochs: float) -> None:
    long = with_length(plain(1)[0], epochs)
    open_ = job(long).model_copy(update={"any_length": True})
    assert first_designs(FIXED, [open_]) == [long]
    assert origin(FIXED, long, [open_]) == "memory"
    assert first_designs(FIXED, [job(long)]) == []
    elsewhere = space_of(pin=Pin(update=("ia3",)), schedule="cosine")
    assert first_designs(elsewhere, [open_]) == [], "the rest of the design must be in the space"
    untuned, default = baselines(FIXED)
    history = [complete(0, untuned, 3.0), complete(1, default, 2.0)]
    assert propose(FIXED, history, 0, 12, [open_]) == long


@pytest.mark.parametrize("any_length", [True, False])
@pytest.mark.parametrize("epochs", [1.0, 8.0, 500.0])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_where_trainings_end_by_themselves_a_past_design_has_the_limit_of_the_new_job(
    schedule: Schedule, epochs: float, any_length: bool
) -> None:
    found = plain(1)[0]
    past = job(with_length(found, epochs, schedule)).model_copy(update={"any_length": any_length})
    assert found.self_ending
    assert first_designs(SPACE, [past]) == [found]
    assert origin(SPACE, found, [past]) == "memory"
    assert propose(SPACE, [complete(0, UNTUNED, 3.0), complete(1, DEFAULT, 2.0)], 0, 12, [past]) == found
    (limited,) = first_designs(space_of(pin=Pin(epochs=(2.0,))), [past])
    assert limited == with_length(found, 2.0, "constant")


def test_two_lengths_of_a_past_design_are_one_where_trainings_end_by_themselves() -> None:
    one, other = plain(2)
    past = job(with_length(one, 1.0), with_length(one, 3.0)), job(with_length(other, 2.0))
    assert first_designs(SPACE, past) == [one, other]


def test_all_stages_of_a_past_design_end_by_themselves_in_the_new_job() -> None:
    space = space_of(DataKind.PREFERENCE, Pin(algorithm=("sft+dpo",)))
    found = next(design for design in samples(space, 50) if not design.architecture.edited)
    assert first_designs(space, [job(with_length(found, 2.0))]) == [found]


@pytest.mark.parametrize("any_length", [True, False])
def test_a_design_that_ended_by_itself_is_not_moved_to_where_the_length_is_fixed(any_length: bool) -> None:
    past = job(plain(1)[0]).model_copy(update={"any_length": any_length})
    assert first_designs(FIXED, [past]) == []
