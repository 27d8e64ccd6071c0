"""Where a trial is compared with others, what its worker reports there, and when its training ends.

A tiny model is trained on 24 rows in batches of 2. The judge's scores are scripted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.algorithms import Algorithm, Dpo, Sft
from luthier.design import Architecture, Design, Optimiser, Schedule, Stage
from luthier.errors import Paused
from luthier.trial import Metrics, StageLength, TrialState, rungs_reached
from luthier.updates import Lora
from luthier.worker_protocol import RungReached, RungVerdict
from tests.unit.test_trial_watch import Run, Service
from workers import trial_watch
from workers.cache import Base
from workers.train import checkpoint as checkpoints
from workers.train.loop import Progress
from workers.trial_result import Candidate
from workers.trial_watch import RESUME

Score = Callable[[int, int], float]  # of a stage after a step; lower is better


def stage(
    algorithm: Algorithm | None = None, *, epochs: float = 2.0, batch: int = 2, schedule: Schedule = "constant"
) -> Stage:
    optimiser = Optimiser(learning_rate=1e-3, batch_size=batch, epochs=epochs, schedule=schedule)
    return Stage(algorithm=algorithm or Sft(), update=Lora(rank=4), optimiser=optimiser)


def falling(stage: int, step: int) -> float:
    return 1 / (1 + step)


def best_at(best: int) -> Score:
    return lambda stage, step: 1.0 + abs(step - best) / 100


class Recorder(Service):
    """Notes the rungs that are reached. The trial pauses at one of them."""

    def __init__(self, folder: Path, pause: int | None) -> None:
        super().__init__(folder)
        self.pause, self.reports = pause, list[RungReached]()

    def rung(self, trial_id: str, reached: RungReached) -> RungVerdict:
        self.reports.append(reached)
        return RungVerdict(action="pause" if reached.rung == self.pause else "continue")


class Climb(Run):
    """A trial whose first rung lies after so many rows."""

    def __init__(
        self,
        tiny: Base,
        folder: Path,
        *stages: Stage,
        first_rung: int = 4,
        pause: int | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(tiny, folder, *stages)
        self.service = self.watch.service = self.lease.service = Recorder(folder / "blobs", pause)
        self.lease.assignment = self.lease.assignment.model_copy(update={"first_rung": first_rung})

    def train_on(
        self, monkeypatch: pytest.MonkeyPatch, score: Score = falling, resume: Path | None = None
    ) -> list[StageLength]:
        at = (0, 0)
        observe = self.watch._observe
        monkeypatch.setattr("workers.trial_watch.FIRST_RUNG_ROWS", (1, 2048))  # it may end before 256 rows

        def scripted(*_: object) -> Metrics:
            value = score(*at)
            return Metrics(perplexity=2.0, bits_per_byte=value, margin=-value, reward=0.5, tokens=10, rows=4)

        def note(progress: Progress) -> None:
            nonlocal at
            at = progress.position.stage, progress.position.step
            observe(progress)

        monkeypatch.setattr(trial_watch, "judge", scripted)
        self.watch._observe = note  # type: ignore[method-assign]
        return list(self.train(None if resume is None else checkpoints.load(resume)).lengths)

    @property
    def rungs(self) -> list[tuple[int, int, int]]:
        """The number, the stage and the step of each rung."""
        return [(one.rung, one.stage, one.step) for one in self.service.reports]


@pytest.mark.parametrize(
    ("first", "batch", "rungs"),
    [
        (4, 2, [(0, 0, 2), (1, 0, 6), (2, 0, 18), (3, 0, 24)]),
        (4, 5, [(0, 0, 1), (1, 0, 3), (2, 0, 8), (3, 0, 10)]),
        (4, 24, [(0, 0, 1), (1, 0, 1), (2, 0, 2)]),
        (16, 2, [(0, 0, 8), (1, 0, 24)]),
        (100, 2, [(0, 0, 24)]),
    ],
)
def test_rungs_lie_at_numbers_of_rows_and_the_one_before_which_it_ends_counts_too(
    first: int, batch: int, rungs: list[tuple[int, int, int]], tiny: Base, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Two epochs are 48 rows."""
    trial = Climb(tiny, tmp_path, stage(batch=batch), first_rung=first)
    trial.train_on(monkeypatch)
    assert trial.rungs == rungs


def test_rungs_of_a_training_of_fixed_length_are_shares_of_it(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Climb(tiny, tmp_path, stage(schedule="cosine"))
    assert trial.train_on(monkeypatch, best_at(4)) == [StageLength(steps=24, epochs=2.0, trained=24, ended="limit")]
    assert trial.rungs == [(0, 0, 3), (1, 0, 8)]
    assert [one.share for one in trial.service.reports] == pytest.approx([1 / 9, 1 / 3])


def test_the_score_at_a_rung_is_that_of_the_best_moment_so_far(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is scored after 2, 4, 6, 9 and 14 steps; rewards are given up at 3.4 times the steps of the best moment."""
    trial = Climb(tiny, tmp_path, stage())
    assert trial.train_on(monkeypatch, best_at(4)) == [
        StageLength(steps=4, epochs=8 / 24, trained=14, ended="best_long_past")
    ]
    assert trial.rungs == [(0, 0, 2), (1, 0, 6), (2, 0, 14)]
    assert [one.metrics.bits_per_byte for one in trial.service.reports] == pytest.approx([1.02, 1.0, 1.0])


def test_the_rows_of_all_stages_count_and_each_stage_ends_at_its_own_best_moment(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first stage, of 9 steps instead of 24, is measured by its likelihood; the second takes 48 rows."""

    def score(stage: int, step: int) -> float:
        return falling(stage, step) if stage else best_at(4)(stage, step)

    trial = Climb(tiny, tmp_path, stage(Sft()), stage(Dpo()), first_rung=10)
    lengths = trial.train_on(monkeypatch, score)
    assert lengths == [
        StageLength(steps=4, epochs=8 / 24, trained=trial.watch.moments.rows_before // 2, ended="best_long_past"),
        StageLength(steps=24, epochs=2.0, trained=24, ended="limit"),
    ]
    read = trial.watch.moments.rows_before
    assert trial.rungs == [(0, 0, 5), (1, 1, (30 - read) // 2), (2, 1, 24)]
    assert len(trial.watch.stage_scores) == 1


@pytest.mark.parametrize("pause", [0, 2])
def test_a_trial_that_pauses_at_a_rung_goes_on_to_the_next_one(
    pause: int, tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Climb(tiny, tmp_path / "whole", stage())
    lengths = whole.train_on(monkeypatch)
    first = Climb(tiny, tmp_path / "first", stage(), pause=pause)
    with pytest.raises(Paused):
        first.train_on(monkeypatch)
    second_folder = tmp_path / "second"
    second_folder.mkdir()
    first.watch.folder.rename(second_folder / RESUME)
    second = Climb(tiny, second_folder, stage())
    assert second.train_on(monkeypatch, resume=second_folder / RESUME) == lengths
    assert first.rungs + second.rungs == whole.rungs


def test_a_training_that_has_ended_is_judged_wherever_it_ranks(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Climb(tiny, tmp_path, stage(), pause=2)
    lengths = trial.train_on(monkeypatch, best_at(4))
    assert lengths == [StageLength(steps=4, epochs=8 / 24, trained=14, ended="best_long_past")]
    assert trial.rungs[-1] == (2, 0, 14)


def test_a_trial_that_wraps_up_ends_with_its_result_even_if_it_may_not_go_on(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Climb(tiny, tmp_path, stage(), pause=0)
    trial.lease._wraps_up_at = 0.0
    assert trial.train_on(monkeypatch) == [StageLength(steps=1, epochs=2 / 24, trained=1, ended="budget")]


def test_a_trial_that_a_user_stops_says_so(tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Climb(tiny, tmp_path, stage(), pause=0)
    trial.lease._wraps_up_at, trial.lease.stopped = 0.0, True
    assert [one.ended for one in trial.train_on(monkeypatch)] == ["user"]


def test_the_end_of_a_training_is_reported_as_such_and_not_logged_as_a_rung(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Climb(tiny, tmp_path, stage())
    trial.train_on(monkeypatch, best_at(4))
    assert [one.at_end for one in trial.service.reports] == [False, False, True]
    logged = [line.text for line in trial.lease.drain_lines() if line.text.startswith("At rung")]
    assert [text.split(",")[0] for text in logged] == ["At rung 1", "At rung 2"]


def test_the_end_of_a_complete_training_is_not_one_of_its_rungs() -> None:
    first, last = (Metrics(perplexity=2.0, bits_per_byte=value, tokens=10, rows=4) for value in (1.0, 0.5))
    ending, fixed = (
        Design(architecture=Architecture(base="tiny"), stages=(one,)) for one in (stage(), stage(schedule="cosine"))
    )
    assert list(rungs_reached(ending, TrialState.COMPLETE, (first, last))) == [first]
    assert list(rungs_reached(ending, TrialState.PRUNED, (first, last))) == [first, last]
    assert list(rungs_reached(fixed, TrialState.COMPLETE, (first, last))) == [first, last]


def test_the_pieces_of_long_texts_count_instead_of_rows(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Climb(tiny, tmp_path, stage(), first_rung=4)
    trial.watch._pieces = 24
    trial.train_on(monkeypatch)
    assert trial.rungs == [(0, 0, 16), (1, 0, 24)], "after 32 pieces, and the end"


@pytest.mark.parametrize("stages", [[stage()], [stage(Sft()), stage(Dpo())]], ids=["one stage", "two stages"])
def test_when_the_budget_ends_each_stage_ends_with_what_it_has(
    stages: list[Stage], tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Climb(tiny, tmp_path, *stages)
    trial.lease._wraps_up_at = 0.0
    assert trial.train_on(monkeypatch) == [StageLength(steps=1, epochs=2 / 24, trained=1, ended="budget")] * len(stages)
    assert [(one.stage, one.step) for one in trial.service.reports][-1] == (len(stages) - 1, 1)


def test_what_is_exported_is_described_as_a_training_of_the_length_of_its_result(tiny: Base) -> None:
    design = Design(architecture=Architecture(base="tiny"), stages=(stage(Sft(), epochs=20.0), stage(Dpo())))
    lengths = [
        StageLength(steps=4, epochs=8 / 24, trained=14, ended="best_long_past"),
        StageLength(steps=24, epochs=2.0, trained=24, ended="limit"),
    ]
    found = Candidate(model=tiny.model, lengths=lengths).as_trained(design)
    assert [one.optimiser.epochs for one in found.stages] == [8 / 24, 2.0]
    assert found.self_ending
    assert Candidate(model=tiny.model).as_trained(design) == design, "untrained"
