"""An exported model is the model that was judged, and anybody can make it again without Luthier."""

from __future__ import annotations

import ast
import copy
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel

from luthier.dataset import read_rows, write_rows
from luthier.design import Architecture, Design, Stage
from luthier.metrics import cell
from luthier.models.base_model import BaseModelEntry, read_facts
from luthier.models.safetensors_header import tensors
from luthier.task import DataKind, JudgeSpec, TextSimilarity
from luthier.trial import Metrics
from luthier.worker_protocol import Assignment
from tests import data_samples
from tests.biased import biased
from tests.integration.export_bases import around, changed, speaks, without_head, without_template
from tests.integration.export_plans import CASES, PLANS, Plan, cases
from tests.reproducing import ALONE, Libraries
from tests.untied import untied
from workers import cache, trial
from workers.evaluate.judge import judge, renderer
from workers.export import exported_tokens
from workers.export.artifacts import export
from workers.export.like_base import checkpoint_dtype
from workers.export.model_card import card
from workers.import_model.standard_config import standard
from workers.train.algorithms import Example, objective
from workers.train.architectures import build
from workers.train.loop import Progress, train
from workers.train.rollouts.sampling import generate

pytestmark = pytest.mark.xdist_group("export")  # each design is trained once, and their scripts share a process

TRAIN, VALIDATION, TEST = slice(0, 40), slice(40, 52), slice(52, 64)

SCORED = 10  # of the validation rows
ROUNDING = 2e-2  # of scores: trials score in float32, and the merged model has the base's bfloat16
TOO_LONG = 7  # the training row whose answer lies beyond the length limit, where rows have prompts

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A design that was trained, judged and exported."""

    plan: Plan
    assignment: Assignment
    metrics: Metrics
    test_metrics: Metrics
    artifacts: dict[str, Path]
    rows: list[Row]

    @property
    def whole(self) -> Path:
        """The artifact that brings everything: the merged model, where the update can be merged."""
        return self.artifacts["merged" if self.plan.merges else "adapter"]

    def model(self) -> PreTrainedModel | PeftModel:
        """The exported model, loaded by plain transformers, and PEFT where it takes that."""
        return load(self.whole) if self.plan.merges else adapted(self.whole)

    @property
    def learnt(self) -> list[Row]:
        """The training rows without the one that is too long."""
        return [row for i, row in enumerate(self.rows[TRAIN]) if i != TOO_LONG or "prompt" not in row]

    def judged(self, model: PreTrainedModel, rows: list[Row]) -> Metrics:
        tokenizer = AutoTokenizer.from_pretrained(self.whole)
        return judge(model, tokenizer, self.assignment.judge, rows)


@pytest.fixture(scope="module")
def trained() -> dict[str, Case]:
    """The designs that were trained already. Tests of some of the designs would train them again."""
    return {}


@pytest.fixture(scope="module", params=CASES)
def case(
    request: pytest.FixtureRequest,
    tiny_entry: BaseModelEntry,
    encoder_entry: BaseModelEntry,
    tmp_path_factory: pytest.TempPathFactory,
    trained: dict[str, Case],
) -> Case:
    if request.param not in trained:
        trained[request.param] = work_on_plan(PLANS[request.param], tiny_entry, encoder_entry, tmp_path_factory)
    return trained[request.param]


def work_on_plan(
    plan: Plan, tiny_entry: BaseModelEntry, encoder_entry: BaseModelEntry, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    if plan.encoder:
        entry = without_head(encoder_entry, tmp_path_factory.mktemp("base")) if plan.headless else encoder_entry
        return work_on(plan, entry, tmp_path_factory.mktemp("trial"))
    entry = tiny_entry if plan.chat_template else without_template(tiny_entry, tmp_path_factory.mktemp("base"))
    entry = speaks(entry, plan.published, tmp_path_factory.mktemp("base")) if plan.published else entry
    entry = around(entry, tmp_path_factory.mktemp("base")) if plan.wrapped else entry
    entry = changed(entry, biased, tmp_path_factory.mktemp("base")) if plan.biases else entry
    entry = entry if plan.tied else changed(entry, untied, tmp_path_factory.mktemp("base"))
    return work_on(plan, entry, tmp_path_factory.mktemp("trial"))


def rows_of(kind: DataKind, *, tools: bool) -> list[Row]:
    match kind:
        case DataKind.TEXT:
            return data_samples.text(TEST.stop)
        case DataKind.CHAT:
            return data_samples.agent(TEST.stop) if tools else data_samples.chat(TEST.stop)
        case DataKind.PAIRS:
            rows = data_samples.pairs(TEST.stop)
        case DataKind.UNPAIRED:
            rows = data_samples.unpaired(TEST.stop)
        case DataKind.PREFERENCE:
            rows = data_samples.preference(TEST.stop)
    rows[TOO_LONG]["prompt"] *= 10
    return rows


def assignment_of(
    design: Design, kind: DataKind, entry: BaseModelEntry, *, tools: bool = False, teacher: BaseModelEntry | None = None
) -> Assignment:
    spec = JudgeSpec(
        kind=kind,
        validation="0" * 64,
        test="1" * 64,
        objective="perplexity",
        grader=None if kind is DataKind.TEXT else TextSimilarity(),
        window=48,
        max_tokens=400 if tools else 64,
        max_new_tokens=8,
        max_rows=SCORED,
        max_generations=4,
        tools=tools,
        family=entry.facts.family,
    )
    return Assignment(
        trial_id="trial-abc",
        job_id="ftjob-abc",
        number=5,
        owner="worker",
        fence=1,
        seed=11,
        design=design,
        base=entry,
        teacher=teacher,
        train="2" * 64,
        judge=spec,
        checkpoint=None,
        device_seconds=0,
    )


class NobodyWatches:
    def after_step(self, progress: Progress) -> None:
        pass


def taught(entry: BaseModelEntry, folder: Path) -> BaseModelEntry:
    """A teacher of the base: the base itself, with other weights."""
    model, generator = copy.deepcopy(cache.base(entry).model), torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.6 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder / "teacher")
    cache.base(entry).tokenizer.save_pretrained(folder / "teacher")
    return BaseModelEntry(name="tiny-teacher", source=str(folder / "teacher"), facts=read_facts(folder / "teacher"))


def work_on(plan: Plan, entry: BaseModelEntry, folder: Path) -> Case:
    """What a worker does with a lease, without the service."""
    rows, base = rows_of(plan.kind, tools=plan.tools), cache.base(entry)
    design = Design(architecture=Architecture(base=entry.name, **(plan.edits or {})), stages=plan.stages)
    teacher = taught(entry, folder) if design.teacher else None
    assignment = assignment_of(design, plan.kind, entry, tools=plan.tools, teacher=teacher)
    tokenizer = cache.tokenizer(entry, assignment.judge)
    render = renderer(tokenizer, assignment.judge)

    def examples(stage: Stage) -> list[Example]:
        learn = objective(stage.algorithm)
        return [example for row in rows[TRAIN] for example in learn.examples(row, plan.kind, render)]

    (folder / "train.jsonl").write_bytes(write_rows(rows[TRAIN]))
    calibration = cache.calibration(entry, assignment.judge, folder / "train.jsonl")
    model = build(base.model, design.architecture, calibration)
    trained = train(
        model,
        design,
        examples,
        seed=assignment.seed,
        watch=NobodyWatches(),
        teacher=trial.teacher_of(assignment, model.device),
    )
    has_adapter = trained.whole_base and entry.facts.head == "own" and trained.applied.save_adapter(folder / "peft")
    model = trained.judged()
    metrics, test_metrics = (judge(model, tokenizer, assignment.judge, rows[part]) for part in (VALIDATION, TEST))
    exported = export(
        folder / "export",
        model=model,
        tokenizer=tokenizer,
        adapter=folder / "peft" if has_adapter else None,
        assignment=assignment,
        metrics=metrics,
        test_metrics=test_metrics,
        train_rows=rows[TRAIN],
        validation_rows=rows[VALIDATION],
        stage_scores=[{"valid_loss": 1.25, "valid_accuracy": 0.75}] * (len(plan.stages) - 1),
    )
    return Case(
        plan=plan,
        assignment=assignment,
        metrics=metrics,
        test_metrics=test_metrics,
        artifacts={artifact.kind: artifact.folder for artifact in exported},
        rows=rows,
    )


def load(folder: Path) -> PreTrainedModel:
    encoder = standard(folder).family == "encoder"
    family = AutoModelForMaskedLM if encoder else AutoModelForCausalLM
    model: PreTrainedModel = family.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def adapted(folder: Path) -> PeftModel:
    """An exported adapter on the base model that it names."""
    source = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    return PeftModel.from_pretrained(base, folder).eval()


def numbers(metrics: Metrics) -> dict[str, float]:
    return {name: value for name, value in metrics.model_dump().items() if isinstance(value, (int, float))}


def test_the_merged_model_scores_in_plain_transformers_as_the_trial_did(case: Case) -> None:
    model = case.model()
    near = {"rel": ROUNDING if case.plan.merges else 1e-6}
    assert numbers(case.judged(model, case.rows[VALIDATION])) == pytest.approx(numbers(case.metrics), **near)
    assert numbers(case.judged(model, case.rows[TEST])) == pytest.approx(numbers(case.test_metrics), **near)


def test_the_merged_model_is_saved_as_its_base_was(case: Case) -> None:
    if not case.plan.merges:
        return
    base = Path(case.assignment.base.source)
    config, own = (json.loads((folder / "config.json").read_text()) for folder in (case.whole, base))
    assert config["dtype"] == str(checkpoint_dtype(base)).removeprefix("torch.")
    assert {tensor.dtype for tensor in tensors(case.whole).values()} == {
        tensor.dtype for tensor in tensors(base).values()
    }
    assert config["dtype"] == own["dtype"]
    if case.plan.published:  # whose end of a turn is one that the base's settings do not name
        saved, before = (json.loads((at / "generation_config.json").read_text()) for at in (case.whole, base))
        assert saved.keys() == before.keys()
        assert {name for name in saved if saved[name] != before[name]} == {"eos_token_id"}
    elif (base / "generation_config.json").is_file():
        assert (case.whole / "generation_config.json").read_bytes() == (base / "generation_config.json").read_bytes()
    pads = [AutoTokenizer.from_pretrained(folder).pad_token for folder in (case.whole, base)]
    assert pads[0] == pads[1]


def test_training_shows_in_the_model_that_is_exported(case: Case) -> None:
    assignment = case.assignment
    calibration = cache.calibration(assignment.base, assignment.judge, case.whole / "reproduce" / "train.jsonl")
    untuned = build(cache.base(assignment.base).model, assignment.design.architecture, calibration)
    before = case.judged(untuned, case.rows[VALIDATION])
    assert abs(case.metrics.likelihood[1] / before.likelihood[1] - 1) > 0.1


@pytest.mark.parametrize("case", cases(lambda plan: plan.tools), indirect=True)
def test_an_agent_learns_its_calls_and_answers_alike_in_plain_transformers(case: Case) -> None:
    """The template that shows tools travels with the weights, and the base's own has none."""
    model, tokenizer = load(case.whole), AutoTokenizer.from_pretrained(case.whole)
    untuned = case.judged(load(Path(case.assignment.base.source)).float(), case.rows[VALIDATION])
    assert case.metrics.perplexity < untuned.perplexity / 2
    for row in case.rows[VALIDATION][:4]:
        inputs = tokenizer.apply_chat_template(
            row["messages"][:1], tools=row["tools"], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        start = inputs["input_ids"].shape[1]
        answer = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, start:]
        worker = cache.tokenizer(case.assignment.base, case.assignment.judge)
        prompt = renderer(worker, case.assignment.judge).prompt(row["messages"][:1], row["tools"])
        assert list(prompt) == inputs["input_ids"][0].tolist()
        assert generate(model, worker, [prompt], 24) == [tokenizer.decode(answer, skip_special_tokens=True).strip()]


def test_there_is_an_adapter_where_one_fits_the_registered_base(case: Case) -> None:
    assert set(case.artifacts) == {
        kind for kind, made in (("merged", case.plan.merges), ("adapter", case.plan.has_adapter)) if made
    }


@pytest.mark.parametrize("case", cases(lambda plan: plan.has_adapter and plan.merges), indirect=True)
def test_the_adapter_on_the_base_gives_the_logits_of_the_merged_model(case: Case) -> None:
    folder = case.artifacts["adapter"]
    source = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert source == case.assignment.base.source
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)("What does the owl near the pond eat?")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(adapted(folder)(ids).logits, load(case.whole)(ids).logits, rtol=0.0, atol=0.1)


@pytest.mark.parametrize("case", cases(lambda plan: not plan.merges), indirect=True)
def test_virtual_tokens_stay_an_adapter_and_the_card_says_so(case: Case) -> None:
    page = (case.whole / "README.md").read_text("utf-8")
    assert "no merged model" in page
    assert "PeftModel" in page
    assert "python reproduce/reproduce.py" in page


def test_whatever_is_not_text_is_safetensors(case: Case) -> None:
    for folder in case.artifacts.values():
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert {file.suffix for file in files if b"\0" in file.read_bytes()} == {".safetensors"}


def test_the_tokenizer_takes_rows_as_long_as_the_models_context(case: Case, tiny: cache.Base) -> None:
    own = case.assignment.base.facts.context
    context = own * (case.assignment.design.architecture.rope_factor or 1)
    assert AutoTokenizer.from_pretrained(case.whole).model_max_length == context
    assert tiny.tokenizer.model_max_length == 512


def test_the_record_names_the_design_its_scores_and_what_made_them(case: Case) -> None:
    for folder in case.artifacts.values():
        record = json.loads((folder / "luthier.json").read_text("utf-8"))
        assert Design.model_validate(record["design"]).digest() == record["design_digest"]
        assert record["design_digest"] == case.assignment.design.digest()
        assert Metrics.model_validate(record["metrics"]) == case.metrics
        assert Metrics.model_validate(record["test_metrics"]) == case.test_metrics
        assert JudgeSpec.model_validate(record["judge"]) == case.assignment.judge
        assert (record["seed"], record["trial_id"], record["job_id"]) == (11, "trial-abc", "ftjob-abc")
        assert set(record["versions"]) == {"torch", "transformers", "peft"}


def test_the_card_has_the_design_the_data_and_the_scores(case: Case) -> None:
    for artifact, folder in case.artifacts.items():
        _, front, page = (folder / "README.md").read_text("utf-8").split("---\n", 2)
        assert yaml.safe_load(front)["base_model"] == case.assignment.base.name
        assert yaml.safe_load(front)["pipeline_tag"] == ("fill-mask" if case.plan.encoder else "text-generation")
        assert yaml.safe_load(front)["library_name"] == {"merged": "transformers", "adapter": "peft"}[artifact]
        for stage in case.assignment.design.stages:
            assert f"- **Learning algorithm**: `{stage.algorithm.kind}`, " in page
            assert f"- **Weight update**: `{stage.update.kind}`, " in page
            assert f"| {stage.optimiser.learning_rate:g} | {stage.optimiser.batch_size} |" in page
        after = re.search(r"After stage 1.* loss 1\.25, preference accuracy 0\.75\.", page)
        assert (after is not None) == (len(case.plan.stages) > 1)
        assert f"- **Task and data**: `{case.plan.kind}`, " in page
        assert "40 training rows" in page
        assert ("1 of them unused" in page) == (len(case.learnt) < 40)
        name, value = case.metrics.likelihood
        assert name == ("pseudo-perplexity" if case.plan.encoder else "perplexity")
        assert f"| {name} | {cell(value)} | {cell(case.test_metrics.likelihood[1])} |" in page
        assert ("- **Head**:" in page) == case.plan.headless
        if case.metrics.reward is not None:
            name = case.metrics.reward_name.replace("_", " ")
            assert f"| {name} | {cell(case.metrics.reward)} | {cell(case.test_metrics.reward)} |" in page


@pytest.mark.parametrize(
    ("origin", "base_model"),
    [
        ({"origin": "tiny.Q4_1.gguf", "quantised": "Q4_1"}, "tiny-chat"),
        ({"origin": "zoo/tiny-chat@0123456789abcdef"}, "zoo/tiny-chat"),
    ],
    ids=["gguf", "hub"],
)
def test_the_card_says_where_the_base_model_comes_from(
    origin: dict[str, str], base_model: str, tiny: cache.Base, tiny_entry: BaseModelEntry
) -> None:
    entry = tiny_entry.model_copy(update={"facts": tiny_entry.facts.model_copy(update=origin)})
    plan = PLANS["sft lora on pairs"]
    design = Design(architecture=Architecture(base=entry.name), stages=plan.stages)
    metrics = Metrics(perplexity=2, bits_per_byte=1, tokens=1, rows=1)
    text = card(
        "merged",
        model=tiny.model,
        tokenizer=tiny.tokenizer,
        assignment=assignment_of(design, plan.kind, entry),
        metrics=metrics,
        test_metrics=metrics,
        rows=1,
        trained=1,
        stage_scores=(),
    )
    _, front, page = text.split("---\n", 2)
    assert yaml.safe_load(front)["base_model"] == base_model
    assert f"`{origin['origin']}`" in page
    assert ("de-quantised from Q4_1" in page) == ("quantised" in origin)


def test_the_script_reaches_the_recorded_perplexity_on_trl_alone(
    case: Case, libraries: Libraries, tmp_path: Path
) -> None:
    check_reproduced(case, libraries.run(script_of(case), tmp_path, "--out", str(tmp_path / "out")))


@pytest.mark.parametrize("case", ["sft lora on pairs"], indirect=True)
def test_the_script_needs_nothing_but_an_interpreter(case: Case, tmp_path: Path) -> None:
    """As a user starts it; the other scripts run in processes that have the libraries loaded already."""
    command = [sys.executable, "-P", str(script_of(case)), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=os.environ | ALONE, cwd=tmp_path, capture_output=True, text=True, check=False)
    check_reproduced(case, done)


def script_of(case: Case) -> Path:
    return case.whole / "reproduce" / "reproduce.py"


def check_reproduced(case: Case, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"validation (?:pseudo-)?perplexity (\S+) \(recorded (\S+)\)", done.stdout)
    assert found is not None
    print(f"{case.assignment.design.summary()}: reproduced {found[1]}, recorded {found[2]}")
    assert float(found[2]) == pytest.approx(case.metrics.likelihood[1], abs=1e-4)
    assert float(found[1]) == pytest.approx(case.metrics.likelihood[1], rel=2e-3)  # the script itself allows 2 %


def test_the_script_stands_on_the_libraries_alone_and_is_formatted(case: Case) -> None:
    script = case.whole / "reproduce" / "reproduce.py"
    imported = {
        name
        for node in ast.walk(ast.parse(script.read_text("utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    packages = {name.partition(".")[0] for name in imported}
    assert packages - sys.stdlib_module_names <= {"torch", "transformers", "trl", "peft", "datasets", "bitsandbytes"}
    for check in (["format", "--diff"], ["check", "--select=E,F,I,N,W", "--ignore=E501"]):
        command = [sys.executable, "-m", "ruff", *check, "--isolated", "--no-cache", "--line-length=120", str(script)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_rows_of_training_and_scoring_are_exported_in_order(case: Case) -> None:
    folder = case.whole / "reproduce"
    for name, expected in (("train.jsonl", case.learnt), ("validation.jsonl", case.rows[VALIDATION][:SCORED])):
        rows = read_rows((folder / name).read_bytes())
        assert [(row.pop(exported_tokens.COLUMN, None) is not None) for row in rows] == [
            case.plan.published is not None
        ] * len(rows)
        assert rows == expected


def test_the_requirements_are_the_versions_that_reproduce_here(case: Case) -> None:
    lines = (case.whole / "reproduce" / "requirements.txt").read_text().split()
    pinned = dict(line.split("==") for line in lines)
    assert {"torch", "transformers", "datasets"} <= set(pinned)
    assert ("trl" in pinned) != case.plan.encoder  # it has no trainer for masked tokens
    assert pinned == {name: version(name).partition("+")[0] for name in pinned}
