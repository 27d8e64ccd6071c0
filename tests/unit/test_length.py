"""How long a training is expected to be where its design only limits it, and what that costs."""

import pytest

from luthier.algorithms import Dpo, RewardModel, Rloo, Sft
from luthier.design import Architecture, Design, Optimiser, Schedule, Stage
from luthier.models.base_model import BaseModelEntry
from luthier.task import DataKind
from luthier.trial import FIRST_MOMENT, RUNGS, first_rung
from luthier.updates import Lora
from search.cost.estimate import Calibration, estimate
from search.cost.length import EXPECTED_ROWS, expected_epochs, moments, rung_shares
from search.cost.trial_work import Plan, plan
from search.methods.amounts import Workload
from search.policy.expectation import expected
from search.policy.features import features
from tests.unit.search_samples import TINY
from tests.unit.test_cost import job
from workers.best_moment import Moments

SFT, DPO = Sft(), Dpo()


def design(*algorithms: object, epochs: float = 20.0, schedule: Schedule = "constant", batch: int = 8) -> Design:
    optimiser = Optimiser(learning_rate=1e-3, batch_size=batch, epochs=epochs, schedule=schedule)
    stages = [Stage(algorithm=one, update=Lora(rank=4), optimiser=optimiser) for one in algorithms or (SFT,)]
    return Design(architecture=Architecture(base=TINY.name), stages=tuple(stages))


def planned(it: Design, load: Workload | None = None, entry: BaseModelEntry = TINY) -> Plan:
    return plan(entry.facts, it, load or job(graded=False), "cpu")


@pytest.mark.parametrize(
    ("rows", "limit", "epochs"),
    [(100, 20.0, 15.0), (300, 20.0, 5.0), (300, 3.0, 3.0), (1000, 6.0, 1.5), (1500, 4.0, 1.0), (10**5, 3.0, 1.0)],
)
def test_a_training_is_expected_to_read_so_many_rows_but_each_at_least_once(
    rows: int, limit: float, epochs: float
) -> None:
    assert EXPECTED_ROWS == 1500
    assert expected_epochs(Optimiser(learning_rate=1e-3, epochs=limit, schedule="constant"), rows) == epochs
    assert expected_epochs(Optimiser(learning_rate=1e-3, epochs=limit), rows) == limit, "a cosine schedule fixes it"


@pytest.mark.parametrize("limit", [0.25, 1.0])
def test_a_limit_below_an_epoch_is_expected_to_be_reached(limit: float) -> None:
    assert expected_epochs(Optimiser(learning_rate=1e-3, epochs=limit, schedule="constant"), 5000) == limit


@pytest.mark.parametrize(
    ("rows", "limit", "shares"),
    [
        (1000, 6.0, [256 / 1500, 768 / 1500]),
        (20, 20.0, [44 * 3**n / 400 for n in range(3)]),
        (20, 3.0, [32 / 60]),
        (256, 1.0, [32 / 256, 96 / 256]),
        (32, 1.0, []),  # it ends at the first rung
        (4, 1.0, []),  # it ends before
        (6912, 3.0, [1 / 4, 3 / 4]),
        (100_000, 3.0, [2048 * 3**n / 100_000 for n in range(4)]),
    ],
)
def test_rungs_of_a_self_ending_training_are_shares_of_the_expected_one(
    rows: int, limit: float, shares: list[float]
) -> None:
    found = rung_shares(design(epochs=limit), rows)
    assert found == pytest.approx(shares)
    assert all(share < 1 for share in found)
    assert rung_shares(design(epochs=limit, schedule="cosine"), rows) == RUNGS


def test_all_stages_read_rows_before_a_rung() -> None:
    one, two = rung_shares(design(SFT), 1000), rung_shares(design(SFT, DPO), 1000)
    assert one[0] == pytest.approx(2 * two[0])
    assert two == pytest.approx([first_rung(design(SFT, DPO), 1000) * 3**n / 3000 for n in range(3)])


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 6, 7, 20, 21, 100, 187, 1000])
def test_as_many_moments_are_reckoned_with_as_a_stage_is_scored_at(steps: int) -> None:
    watched, count = Moments(), 0
    for step in range(1, steps + 1):
        if watched.due(step) or step == steps:
            watched, count = watched.after(step, (1.0 / step, 0.0), None), count + 1
    assert moments(steps) == pytest.approx(count, abs=1)
    assert moments(FIRST_MOMENT) == 1


def test_a_self_ending_design_costs_its_expected_length_and_not_its_limit() -> None:
    it, fixed = planned(design()), planned(design(epochs=7.5, schedule="cosine"))
    assert (it.steps, it.tokens, it.training) == (fixed.steps, fixed.tokens, fixed.training)
    assert it.steps == 188, "1500 rows in batches of 8"
    assert planned(design(epochs=10.0)).training == it.training
    assert planned(design(epochs=3.0)).training == planned(design(epochs=3.0, schedule="cosine")).training


def test_memory_does_not_depend_on_the_limit() -> None:
    found = [
        estimate(TINY.facts, design(epochs=epochs), job(graded=False), Calibration.default("cpu")).memory_bytes
        for epochs in (20.0, 3.0, 1.0)
    ]
    assert len(set(found)) == 1


def test_a_self_ending_training_is_judged_at_its_moments_and_rungs() -> None:
    """Each time on 20 validation rows; at the end also on 20 test rows."""
    it, fixed = planned(design()), planned(design(epochs=7.5, schedule="cosine"))
    assert fixed.judged_rows == (2 + len(RUNGS)) * 20
    assert it.judged_rows == (2 + moments(188) + len(rung_shares(design(), 200))) * 20
    assert it.judging.flops > 3 * fixed.judging.flops


def test_each_stage_has_moments_of_its_own_and_a_reward_model_scores_itself() -> None:
    load = job(DataKind.PREFERENCE, graded=False)

    def scorings(it: Design) -> int:
        return planned(it, load).judged_rows // 20 - 2 - len(rung_shares(it, 200))

    assert scorings(design(SFT)) == moments(188)
    assert scorings(design(SFT, DPO)) == 2 * moments(188)
    assert scorings(design(RewardModel(), Rloo())) == scorings(design(Rloo()))


def test_a_self_ending_design_has_no_length_among_its_features() -> None:
    it, longer = (features(design(epochs=epochs), 128) for epochs in (3.0, 20.0))
    assert "epochs" not in it.numbers
    assert it == longer, "the limit is no choice"
    fixed = features(design(epochs=3.0, schedule="cosine"), 128)
    assert fixed.numbers == it.numbers | {"epochs": pytest.approx(1.0)}


def test_what_is_expected_of_a_design_without_a_length_is_that_of_one_epoch() -> None:
    it, once, thrice = (
        expected(features(one, 128))
        for one in (design(), design(epochs=1.0, schedule="cosine"), design(epochs=3.0, schedule="cosine"))
    )
    assert it == pytest.approx(once)
    assert thrice < once
