"""The reproduction script of online RL: TRL's trainers with the grader in rewards.py, or RAFT's loop."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest

from luthier.algorithms import Algorithm, Grpo, Raft, Rloo
from luthier.design import Architecture, Design, Optimiser, Schedule, Stage
from luthier.graders import grade, sample_of
from luthier.models.base_model import BaseModelEntry
from luthier.task import DataKind, Grader, JudgeSpec, Math, Multi, Number, StringCheck, TextSimilarity
from luthier.updates import Full, Lora, Update
from luthier.worker_protocol import Assignment
from tests import data_samples
from tests.reproducing import Libraries
from workers.cache import Base
from workers.evaluate.judge import judge, renderer
from workers.export import reproduction
from workers.templates import rewards
from workers.train.algorithms import objective
from workers.train.average import EXPONENT
from workers.train.loop import Progress, train
from workers.train.rollouts.play import world_of

pytestmark = pytest.mark.xdist_group("export")  # one process for all that has their libraries loaded

# What the tiny model's likeliest answers never earn, and most of those that it draws do.
WITHOUT_I = Multi(graders={"I": StringCheck(operation="like", reference="I")}, calculate_output="1 - I")
ANSWERS = [
    "",
    "4",
    "about 4.0 or so",
    "-4",
    "the cat eats fish",
    "The Cat eats fish.",
    "$\\frac{8}{2}$",
    "x",
    '{"a": [4]}',
]
REFERENCES = ["4", "The cat eats fish.", "4,000", "$4$"]
GRADERS: list[Grader] = [
    *(StringCheck(operation=operation) for operation in ("eq", "ne", "like", "ilike")),
    *(TextSimilarity(evaluation_metric=metric) for metric in ("fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_l")),
    Number(),
    Math(),
    StringCheck(input="{{sample.output_json.a.0}}"),
    Multi(graders={"a": Number(), "b": TextSimilarity()}, calculate_output="max(a, b)^2 - 0.5 * min(a, 1)"),
]


@pytest.mark.parametrize("grader", GRADERS, ids=lambda grader: grader.type)
def test_the_scripts_grades_are_the_graders(grader: Grader) -> None:
    for reference in REFERENCES:
        for answer in ANSWERS:
            item = {"reference": reference}
            ours = grade(grader, item=item, sample=sample_of(answer))
            assert rewards.grade(grader.model_dump(), item, answer) == pytest.approx(ours), (reference, answer)


def test_the_script_averages_weights_as_training_does() -> None:
    assert rewards.AVERAGED == EXPONENT + 1


class NobodyWatches:
    def after_step(self, progress: Progress) -> None:
        pass


def assignment_of(
    algorithm: Algorithm, update: Update, rate: float, schedule: Schedule, entry: BaseModelEntry
) -> Assignment:
    epochs = 16.0 if algorithm.kind == "raft" else 6.0
    recipe = Optimiser(learning_rate=rate, batch_size=4, epochs=epochs, schedule=schedule)
    stage = Stage(algorithm=algorithm, update=update, optimiser=recipe)
    spec = JudgeSpec(
        kind=DataKind.PAIRS, validation="0", test="1", objective="reward", grader=WITHOUT_I, max_new_tokens=6
    )
    return Assignment(
        trial_id="trial-abc",
        job_id="ftjob-abc",
        number=1,
        owner="worker",
        fence=1,
        seed=7,
        design=Design(architecture=Architecture(base=entry.name), stages=(stage,)),
        base=entry,
        train="2",
        judge=spec,
        checkpoint=None,
        device_seconds=0,
    )


@pytest.mark.parametrize(
    ("algorithm", "update", "rate", "schedule"),
    [
        (Grpo(group=8), Lora(rank=8), 5e-3, "cosine"),
        (Rloo(group=8, beta=0.01), Full(), 5e-4, "constant"),
        pytest.param(Raft(group=8), Lora(rank=8), 5e-3, "constant", marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_the_script_reaches_the_recorded_reward(
    algorithm: Algorithm,
    update: Update,
    rate: float,
    schedule: Schedule,
    tiny: Base,
    libraries: Libraries,
    tmp_path: Path,
) -> None:
    assignment, rows = assignment_of(algorithm, update, rate, schedule, tiny.entry), data_samples.pairs(10)
    learn, render = objective(algorithm), renderer(tiny.tokenizer, assignment.judge)
    prompts = [example for row in rows for example in learn.examples(row, DataKind.PAIRS, render)]
    world = world_of(assignment.judge, render)
    model = copy.deepcopy(tiny.model)
    trained = train(model, assignment.design, lambda _: prompts, seed=7, watch=NobodyWatches(), world=world)
    merged = trained.applied.merge()
    metrics = judge(merged, tiny.tokenizer, assignment.judge, rows)
    folder = tmp_path / "reproduce"
    reproduction.write(
        folder,
        model=merged,
        tokenizer=tiny.tokenizer,
        assignment=assignment,
        metrics=metrics,
        train_rows=rows,
        scored_rows=rows,
    )
    for check in (["format", "--diff"], ["check", "--select=E,F,I,N,W", "--ignore=E501"]):
        command = [sys.executable, "-m", "ruff", *check, "--isolated", "--no-cache", "--line-length=120"]
        checked = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout
    done = libraries.run(folder / "reproduce.py", tmp_path, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"validation reward (\S+) ± (\S+) \(recorded (\S+), untrained (\S+)\)", done.stdout)
    assert found is not None
    print(f"{assignment.design.summary()}: {found[0]}")
    assert float(found[3]) == pytest.approx(metrics.reward, abs=1e-4)
    assert float(found[1]) > float(found[4]) + 0.3
