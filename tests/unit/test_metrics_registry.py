"""One declaration per metric and per curve: every place reads it, and the judge and the training steps provide it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from io import StringIO
from typing import Any, get_args

import pytest
from rich.console import Console

from luthier import metrics as registry
from luthier.algorithms import Algorithm, Gkd, Grpo, Raft, RewardModel, Rloo
from luthier.api_types import Job, Progress, Standing
from luthier.cli.show import trials_table
from luthier.design import Optimiser
from luthier.metrics import (
    CURVES,
    METRICS,
    MetricSpec,
    cell,
    curve_phrases,
    deciding,
    figure,
    held_out,
    mean_metrics,
    phrases,
    signed,
)
from luthier.models.base_model import BaseModelEntry
from luthier.store.rows import TrialRecord
from luthier.task import DataKind, Grader, JudgeSpec, Objective, StringCheck
from luthier.trial import Metrics, RowScores, TrialState
from luthier.updates import Full
from service.dashboard import compare, jobs, leaderboard
from service.integrations import tracker
from tests import data_samples
from tests.integration.test_export import assignment_of
from tests.playing import MENTIONS_I, prompts, world
from tests.unit.report_samples import case, default, untuned
from tests.unit.test_show import DESIGN, trial
from tests.unit.test_stage_trainer import ALGORITHMS, trainer
from workers.cache import Base
from workers.evaluate.judge import general_bits_per_byte, judge
from workers.export.model_card import card
from workers.train import updates
from workers.train.algorithms import Context, Teacher, objective
from workers.train.data.tokenize import Renderer
from workers.train.stage_trainer import StageTrainer

JUDGED: dict[str, tuple[DataKind, Grader | None, list[dict[str, Any]]]] = {
    "text": (DataKind.TEXT, None, data_samples.text(4)),
    "pairs": (DataKind.PAIRS, None, data_samples.pairs(4)),
    "graded pairs": (DataKind.PAIRS, MENTIONS_I, data_samples.pairs(4)),
    "chat": (DataKind.CHAT, None, data_samples.chat(4)),
    "prompts": (
        DataKind.PROMPTS,
        StringCheck(operation="like", reference="I"),
        [{"prompt": row["prompt"]} for row in data_samples.pairs(4)],
    ),
    "preference": (DataKind.PREFERENCE, None, data_samples.preference(4)),
    "unpaired": (DataKind.UNPAIRED, None, data_samples.unpaired(8)),
}


class Wider(Metrics):
    """The stored shape with the field of a new metric."""

    brier: float


BRIER = MetricSpec(
    name="brier",
    label="Brier score",
    description="The mean squared error of the predicted probabilities.",
    lower_is_better=True,
)
FOUND = Wider(perplexity=2.0, bits_per_byte=1.0, brier=0.125, tokens=10, rows=2)


@pytest.fixture
def brier(monkeypatch: pytest.MonkeyPatch) -> MetricSpec:
    monkeypatch.setattr(registry, "METRICS", (*METRICS, BRIER))
    return BRIER


# The declarations


def test_every_number_that_is_stored_is_declared_once_and_every_declaration_is_stored() -> None:
    names = [spec.name for spec in METRICS]
    assert len(set(names)) == len(names)
    counts = {"tokens", "rows"}
    numbers = {name for name, field in Metrics.model_fields.items() if field.annotation in (float, float | None)}
    assert set(names) - {"general_bits_per_byte"} == numbers == Metrics.model_fields.keys() - counts - {"reward_name"}
    assert "general_bits_per_byte" in RowScores.model_fields


@pytest.mark.parametrize("spec", [*METRICS, *CURVES], ids=lambda spec: spec.name)
def test_each_has_a_label_a_unit_a_direction_and_a_description(spec: registry.MetricSpec | registry.CurveSpec) -> None:
    assert spec.label == spec.label.strip() != ""
    assert spec.description.endswith(".")
    assert "_" not in spec.label + spec.unit
    assert spec.lower_is_better in (True, False, None)


def test_labels_of_curves_tell_them_apart() -> None:
    assert len({curve.name for curve in CURVES}) == len({curve.label for curve in CURVES}) == len(CURVES)


def test_each_objective_has_one_metric_that_trials_are_ranked_by() -> None:
    for wanted in get_args(Objective):
        assert [spec for spec in METRICS if spec.objective == wanted] == [deciding(wanted)]
    assert (deciding("perplexity").sign, deciding("reward").sign) == (1, -1)


# What the judge and the training steps give


@pytest.mark.parametrize("data", JUDGED)
def test_the_judge_gives_the_metrics_that_are_declared_for_the_data(data: str, tiny: Base) -> None:
    kind, grader, rows = JUDGED[data]
    spec = JudgeSpec(
        kind=kind, validation="v", test="t", objective="perplexity", grader=grader, max_new_tokens=4, window=64
    )
    found = judge(tiny.model, tiny.tokenizer, spec, rows)
    assert measured(found) == declared(spec)
    general = general_bits_per_byte(tiny.model, tiny.tokenizer, spec)
    scores = RowScores(nll=(1.0,), tokens=(1,), bytes=(1.0,), general_bits_per_byte=general)
    assert measured(scores) == {"general_bits_per_byte"}


def test_the_judge_of_an_encoder_gives_the_metrics_that_are_declared_for_it(encoder: Base) -> None:
    spec = JudgeSpec(kind=DataKind.TEXT, validation="v", test="t", objective="perplexity", family="encoder", window=32)
    assert measured(judge(encoder.model, encoder.tokenizer, spec, data_samples.text(2))) == declared(spec)


def measured(found: Metrics | RowScores) -> set[str]:
    return {spec.name for spec in METRICS if spec.value(found) is not None}


def declared(judge_spec: JudgeSpec) -> set[str]:
    return {spec.name for spec in METRICS if spec.applies(judge_spec)} - {"general_bits_per_byte"}


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.kind)
def test_every_curve_of_a_training_step_is_declared(algorithm: Algorithm, tiny: Base) -> None:
    assert_declared(trainer(tiny, algorithm, Optimiser(learning_rate=1e-4, batch_size=2)))


@pytest.mark.parametrize(
    "algorithm", [Grpo(group=2, beta=0.1), Rloo(group=2), Raft(group=2), RewardModel()], ids=lambda one: one.kind
)
def test_every_curve_of_reward_maximisation_is_declared(algorithm: Algorithm, tiny: Base) -> None:
    learn = objective(algorithm, Context(world=world(tiny)))
    render = Renderer(tiny.tokenizer, window=64, max_tokens=512)
    rows = data_samples.preference(2)
    compared = isinstance(algorithm, RewardModel)
    pairs = [example for row in rows if compared for example in learn.examples(row, DataKind.PREFERENCE, render)]
    made = StageTrainer(
        applied=updates.apply(copy.deepcopy(tiny.model), Full(), seed=1),
        objective=learn,
        examples=pairs or prompts(learn, tiny, 2),
        optimiser=Optimiser(learning_rate=1e-4, batch_size=2),
        seed=1,
    )
    made.keep_reference()
    assert_declared(made)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_every_curve_of_distillation_is_declared(share: float, tiny: Base) -> None:
    teacher = Teacher(model=tiny.model, tokenizer=tiny.tokenizer, max_new_tokens=4)
    learn = objective(Gkd(teacher="tiny", share=share), Context(teacher=teacher))
    render = Renderer(tiny.tokenizer, window=64, max_tokens=512)
    made = StageTrainer(
        applied=updates.apply(copy.deepcopy(tiny.model), Full(), seed=1),
        objective=learn,
        examples=[example for row in data_samples.pairs(2) for example in learn.examples(row, DataKind.PAIRS, render)],
        optimiser=Optimiser(learning_rate=1e-4, batch_size=2),
        seed=1,
    )
    assert_declared(made)


def assert_declared(made: StageTrainer) -> None:
    assert made.advance().values.keys() <= {curve.name for curve in CURVES if curve.split == "training"}


@pytest.mark.parametrize(
    ("kind", "reward", "names"),
    [
        (DataKind.TEXT, None, {"valid_loss"}),
        (DataKind.PAIRS, 0.5, {"valid_loss", "valid_reward"}),
        (DataKind.PREFERENCE, 0.5, {"valid_loss", "valid_accuracy"}),
    ],
)
def test_validation_curves_are_read_from_the_metrics(kind: DataKind, reward: float | None, names: set[str]) -> None:
    found = held_out(Metrics(perplexity=1.0, bits_per_byte=1.0, reward=reward, tokens=1, rows=1), kind)
    assert found.keys() == names
    assert found["valid_loss"] == 0.0
    assert curve_phrases(found).count(",") == len(names) - 1


# Words and means


def test_a_phrase_names_the_variant_of_the_reward_and_starts_with_what_trials_are_ranked_by() -> None:
    found = Metrics(
        perplexity=12.5, bits_per_byte=0.9, reward=0.25, reward_name="preference_accuracy", tokens=1, rows=1
    )
    assert phrases("log", found) == "0.9 bits per byte, preference accuracy 0.25, perplexity 12.5"
    assert deciding("reward").describe(found) != deciding("reward").description


def test_perplexities_are_averaged_geometrically_and_the_rest_arithmetically() -> None:
    numbers = ((2, 1, 1), (8, 3, 2))
    seeds = [Metrics(pseudo_perplexity=p, bits_per_byte=b, margin=m, tokens=1, rows=1) for p, b, m in numbers]
    mean = mean_metrics(seeds)
    assert (mean.perplexity, mean.pseudo_perplexity, mean.bits_per_byte, mean.margin) == (
        None,
        pytest.approx(4),
        2,
        1.5,
    )


# A new metric is one declaration


def test_a_new_metric_has_a_column_in_the_leaderboard_and_can_be_sorted_by(brier: MetricSpec) -> None:
    tried = [
        one.model_copy(update={"metrics": FOUND.model_copy(update={"brier": value})})
        for one, value in ((untuned(), 0.5), (default(), 0.25))
    ]
    table = leaderboard.table(case(tried), leaderboard.View(sort="brier"), None)
    assert [(column.label, column.description) for column in table.columns] == [(BRIER.label, BRIER.description)]
    assert [row.metrics["brier"] for row in table.rows] == [0.25, 0.5]
    assert leaderboard.table(case(), leaderboard.View(), None).columns == ()


def test_a_new_metric_has_a_row_where_jobs_are_compared(brier: MetricSpec) -> None:
    lines = [jobs.Line.model_construct(job=job(FOUND)), jobs.Line.model_construct(job=job(None))]
    rows = dict(compare.metric_rows(lines))
    assert rows["recommended: Brier score"] == ["0.1250", "–"]
    assert rows["recommended: perplexity"] == ["2.000", "–"]


def job(best: Metrics | None) -> Job:
    standing = None if best is None else Standing(trial="trial-1", number=1, summary="", metrics=best)
    return Job.model_construct(luthier=Progress.model_construct(best=standing))


def test_a_new_metric_is_told_to_trackers_and_stands_in_sentences(brier: MetricSpec) -> None:
    record = TrialRecord.model_construct(device_seconds=1.0, trained_tokens=2, metrics=FOUND, test_metrics=FOUND)
    told = tracker.scores(record)
    assert (told["validation/brier"], told["test/brier"]) == (0.125, 0.125)
    assert "Brier score 0.125" in phrases("log", FOUND)


def test_a_new_metric_has_a_column_in_the_command_lines_table(brier: MetricSpec) -> None:
    out = StringIO()
    Console(file=out, width=160).print(trials_table([trial(state=TrialState.COMPLETE, metrics=FOUND)], None))
    assert "Brier score" in out.getvalue()
    assert "0.1250" in out.getvalue()


def test_a_new_metric_is_on_the_model_card_with_its_description(
    brier: MetricSpec, tiny: Base, tiny_entry: BaseModelEntry
) -> None:
    page = card(
        "merged",
        model=tiny.model,
        tokenizer=tiny.tokenizer,
        assignment=assignment_of(DESIGN, DataKind.PAIRS, tiny_entry),
        metrics=FOUND,
        test_metrics=FOUND.model_copy(update={"brier": 0.25}),
        rows=2,
        trained=2,
        stage_scores=(),
    )
    assert "| Brier score | 0.1250 | 0.2500 |" in page
    assert BRIER.description in page


@pytest.mark.parametrize("show", [figure, signed, cell])
def test_a_negative_zero_has_no_sign(show: Callable[[float], str]) -> None:
    assert show(-0.0) == show(0.0)


def test_the_metric_of_the_objective_comes_first_in_a_sentence() -> None:
    pairs = Metrics(
        perplexity=2.0, bits_per_byte=0.5, reward=0.75, reward_name="preference_accuracy", margin=0.1, tokens=9, rows=4
    )
    assert phrases("log", pairs, "reward").startswith("preference accuracy 0.75, 0.5 bits per byte")
    assert phrases("log", pairs, "perplexity").startswith("0.5 bits per byte, preference accuracy 0.75")
    assert "margin 0.1" in phrases("log", pairs, "reward")
    assert phrases("headline", pairs, "perplexity").startswith("0.5 bits per byte")
