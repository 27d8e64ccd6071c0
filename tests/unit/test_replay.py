"""The replay of searches on recorded curves: what is paid for, and when."""

from collections.abc import Sequence
from typing import Literal

import pytest

from bench.atlas.table import Curve, Table
from bench.atlas.tasks import TASKS
from bench.replay import RESUME_SECONDS, replay
from luthier.design import Design
from luthier.trial import TrialState
from search.policy.history import Past, RungScore
from search.policy.scheduler import Promote, Try

TASK = TASKS[0]
DESIGNS = [design for design, _ in zip(TASK.designs(), range(4), strict=False)]


def table() -> Table:
    """Four designs of 9 seconds each, worth 1, 2, 3 and 4."""
    curves = {
        design.digest(): Curve(
            design=design,
            scores=tuple(RungScore(value, (value, 0.0)) for value in (worth + 2.0, worth + 1.0, float(worth))),
            costs=(1.0, 3.0, 9.0),
        )
        for worth, design in enumerate(DESIGNS, 1)
    }
    untuned = Design.model_validate({"architecture": {"base": "tiny-chat"}})
    return Table(
        task=TASK,
        untuned=Curve(design=untuned, scores=(RungScore(9.0, (9.0, 0.0)),), costs=(0.5,)),
        curves=curves,
        diverged=0,
    )


class Scripted:
    """Tries the designs in order, with one answer for all that are scored at a rung."""

    def __init__(self, verdict: Literal["continue", "pause", "stop"], goal: int | None = None) -> None:
        self.answer, self.goal = verdict, goal
        self.histories: list[list[Past]] = []

    def next(self, history: Sequence[Past]) -> Try | Promote | None:
        self.histories.append(list(history))
        if len(history) < len(DESIGNS):
            return Try(design=DESIGNS[len(history)], origin="proposed", goal=self.goal)
        paused = [past for past in history if past.paused]
        return Promote(number=paused[0].number, goal=None) if paused else None

    def at_rung(self, history: Sequence[Past], number: int) -> Literal["continue", "pause", "stop"]:
        return self.answer if history[number].goal is not None or self.answer == "stop" else "continue"

    def completed(self, past: Past) -> None:
        assert past.state is TrialState.COMPLETE


class Goals(Scripted):
    """Notes the goal of what is scored at a rung."""

    def __init__(self) -> None:
        super().__init__("continue", goal=1)
        self.goals: list[int | None] = []

    def at_rung(self, history: Sequence[Past], number: int) -> Literal["continue", "pause", "stop"]:
        self.goals.append(history[number].goal)
        return super().at_rung(history, number)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_device_seconds_count_every_busy_worker(workers: int) -> None:
    seen = list(replay(table(), Scripted("continue"), workers))
    assert [scored.value for scored in seen] == [1, 2, 3, 4]
    assert seen[-1].spent == pytest.approx(36)
    assert seen[0].spent == pytest.approx(9 * workers)


def test_what_is_stopped_at_a_rung_costs_what_it_took_until_then() -> None:
    searcher = Scripted("stop")
    assert list(replay(table(), searcher, 1)) == []
    assert [past.device_seconds for past in searcher.histories[-1]] == [1.0] * 4
    assert {past.state for past in searcher.histories[-1]} == {TrialState.PRUNED}


def test_a_goal_is_raised_where_it_is_reached_and_not_before() -> None:
    searcher = Scripted("continue", goal=1)
    list(replay(table(), searcher, 1))
    assert {past.goal for past in searcher.histories[-1]} == {None}
    asked = Goals()
    list(replay(table(), asked, 1))
    assert asked.goals[:2] == [1, 1], "at the first rung and at the second"


def test_what_is_promoted_goes_on_from_where_it_paused_for_the_price_of_a_checkpoint() -> None:
    seen = list(replay(table(), Scripted("pause", goal=0), 1))
    assert [scored.value for scored in seen] == [1, 2, 3, 4]
    assert seen[0].spent == pytest.approx(4 * 1 + 8 + RESUME_SECONDS)
    assert seen[-1].spent == pytest.approx(4 * (9 + RESUME_SECONDS))


def test_a_searcher_never_sees_what_has_not_been_paid_for() -> None:
    searcher = Scripted("pause", goal=0)
    list(replay(table(), searcher, 2))
    for history in searcher.histories:
        for past in history:
            assert len(past.measured) == sum(past.device_seconds >= cost for cost in (1.0, 3.0))
            assert (past.value is not None) == (past.device_seconds == 9.0)


def test_every_grid_holds_its_own_default_and_no_design_twice() -> None:
    for task in TASKS:
        digests = [design.digest() for design in task.designs()]
        assert len(set(digests)) == len(digests) >= 300
