"""What the tables of the command line say of trials that pause, were given up, or confirm others."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from luthier.algorithms import Sft
from luthier.api_types import Job, Progress, Standing, Trial
from luthier.cli.follow import _status_line
from luthier.cli.show import ends, standing, state_of, trials_table
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.task import Constraints, DataKind, Search, Task
from luthier.trial import JobState, Metrics, StageEnd, StageLength, TrialState
from luthier.updates import Lora

DESIGN = Design(
    architecture=Architecture(base="tiny"),
    stages=(Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=Optimiser(learning_rate=1e-3)),),
)
SELF_ENDING = DESIGN.model_copy(
    update={
        "stages": (
            DESIGN.stages[0].model_copy(
                update={"optimiser": Optimiser(learning_rate=1e-3, epochs=20.0, schedule="constant")}
            ),
        )
    }
)
MEASURED = Metrics(perplexity=12.5, bits_per_byte=0.9, tokens=100, rows=32)


def trial(number: int = 5, state: TrialState = TrialState.WAITING, **fields: object) -> Trial:
    nothing = dict.fromkeys(("rung", "worker", "started_at", "finished_at", "metrics", "test_metrics", "error"))
    counts = dict.fromkeys(("seed", "attempts", "created_at", "device_seconds", "trained_tokens"), 0)
    return Trial(
        **{
            "id": f"trial-{number}",
            "job_id": "ftjob-abc",
            "number": number,
            "state": state,
            "summary": DESIGN.summary(),
            "design": DESIGN,
            "origin": "prior",
            **nothing,
            **counts,
            **fields,
        }
    )


def printed(*trials: Trial) -> str:
    out = StringIO()
    Console(file=out, width=160).print(trials_table(trials, None))
    return out.getvalue()


@pytest.mark.parametrize(
    ("ended", "steps", "said"),
    [
        ("budget", 51, "budget at step 51, while"),
        ("budget", 30, "budget at step 51"),
        ("user", 51, "user"),
        ("limit", 51, ""),
    ],
)
def test_a_training_that_did_not_end_by_itself_says_so(ended: StageEnd, steps: int, said: str) -> None:
    length = StageLength(steps=steps, epochs=4.0, trained=51, ended=ended)
    found = " ".join(ends(trial(state=TrialState.COMPLETE, design=SELF_ENDING, metrics=MEASURED, lengths=(length,))))
    assert said in found
    assert ("improved" in found) == (steps == 51 and ended != "limit")
    assert bool(found) == bool(said)


def test_the_objective_of_the_job_comes_first() -> None:
    best = Standing(trial="t", number=3, summary="s", metrics=MEASURED)
    assert standing(best, "perplexity").startswith("#3: 0.9 bits per byte, perplexity 12.5")
    graded = best.model_copy(update={"metrics": MEASURED.model_copy(update={"reward": 0.5})})
    assert standing(graded, "reward").startswith("#3: reward 0.5")


@pytest.mark.parametrize(
    ("state", "rung", "paused", "said"),
    [
        (TrialState.WAITING, 0, True, "paused at 1/9"),
        (TrialState.WAITING, 1, True, "paused at 1/3"),
        (TrialState.WAITING, 0, False, "waiting"),
        (TrialState.PRUNED, 1, False, "stopped at 1/3"),
        (TrialState.PRUNED, None, False, "stopped"),
        (TrialState.LEASED, 1, False, "running"),
        (TrialState.COMPLETE, 1, False, "complete"),
    ],
)
def test_the_state_says_where_a_trial_pauses_or_was_given_up(
    state: TrialState, rung: int | None, paused: bool, said: str
) -> None:
    assert state_of(trial(state=state, rung=rung, paused=paused)) == said
    assert said in printed(trial(state=state, rung=rung, paused=paused))


@pytest.mark.parametrize(
    ("state", "rung", "paused", "said"),
    [
        (TrialState.WAITING, 0, True, "paused at rung 1"),
        (TrialState.WAITING, 3, True, "paused at rung 4"),
        (TrialState.PRUNED, 2, False, "stopped at rung 3"),
        (TrialState.COMPLETE, 4, False, "complete"),
    ],
)
def test_rungs_of_a_training_without_a_fixed_length_have_numbers(
    state: TrialState, rung: int, paused: bool, said: str
) -> None:
    measured = (MEASURED,) * (rung + 1)
    one = trial(state=state, rung=rung, paused=paused, design=SELF_ENDING, measured=measured)
    assert state_of(one) == said
    shown = printed(one)
    assert said in shown
    assert f"at rung {rung + 1}, on fewer rows" in shown


def test_what_was_measured_at_a_rung_stands_under_a_trial_without_a_score() -> None:
    line = "at 1/9, on fewer rows: 0.9 bits per byte, perplexity 12.5"
    assert line in printed(trial(rung=0, paused=True, measured=(MEASURED,)))
    assert "at 1/3, on fewer rows" in printed(trial(rung=1, paused=True, measured=(MEASURED, MEASURED)))
    assert "fewer rows" not in printed(trial(state=TrialState.COMPLETE, rung=0, measured=(MEASURED,), metrics=MEASURED))


def test_a_confirmation_names_the_trial_that_it_repeats() -> None:
    assert "repeat of #2 with seed 43" in printed(trial(origin="confirmation", confirms=2, seed=43))


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        ({"trials_done": 4, "trials_paused": 3}, "no score yet, 3 paused"),
        ({"trials_done": 4, "confirmations_total": 8}, "no score yet"),
        ({"trials_done": 9, "confirmations_total": 8, "confirmations_done": 5}, "no score yet, repeats 5/8"),
        ({"trials_done": 9}, "no score yet"),
    ],
)
def test_the_line_of_progress_tells_of_pauses_and_then_of_confirmations(progress: dict[str, int], said: str) -> None:
    luthier = Progress(
        kind=DataKind.PAIRS,
        objective="perplexity",
        task=Task(),
        search=Search(trials=9),
        constraints=Constraints(),
        trials_total=9,
        trials_running=1,
        device_seconds=1.0,
        best=None,
        estimated_finish=None,
        **progress,
    )
    job = Job.model_construct(status=JobState.RUNNING, luthier=luthier)
    assert _status_line(job, 0.0) == said
