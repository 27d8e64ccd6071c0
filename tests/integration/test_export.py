"""An exported model is the model that was judged, and anybody can make it again without Luthier."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import data_samples
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from luthier.dataset import read_rows
from luthier.design import (
    Architecture,
    Clm,
    Design,
    Dora,
    Dpo,
    Full,
    Lora,
    Optimiser,
    RsLora,
    Sft,
    Stage,
    TopLayers,
)
from luthier.model import BaseModelEntry, read_facts
from luthier.task import DataKind, JudgeSpec, TextSimilarity
from luthier.trial import Metrics
from luthier.wire import Assignment
from workers import warm
from workers.export import Exported, export
from workers.generate import main as generate_main
from workers.judge import generate as judge_generate
from workers.judge import judge, renderer
from workers.train.algorithms import Example, objective
from workers.train.architectures import build
from workers.train.data.rendering import Renderer
from workers.train.loop import Progress, train

BASE = Path(__file__).parents[1] / "models" / "tiny-chat"
TRAIN_ROWS, VALIDATION_ROWS, TEST_ROWS = 40, 12, 12
ALONE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def design(*stages: Stage, **edits: int) -> Design:
    return Design(architecture=Architecture(base="tiny-chat", **edits), stages=stages)


def optimiser(learning_rate: float, **more: Any) -> Optimiser:
    return Optimiser(learning_rate=learning_rate, warmup=0.2, **more)


FEW_EPOCHS = optimiser(5e-3, epochs=1.5)
DESIGNS = {
    "sft lora on pairs": (DataKind.PAIRS, design(Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=FEW_EPOCHS))),
    "clm full on text": (
        DataKind.TEXT,
        design(Stage(algorithm=Clm(), update=Full(), optimiser=optimiser(1e-3, weight_decay=0.1))),
    ),
    "dpo rslora on preference": (
        DataKind.PREFERENCE,
        design(Stage(algorithm=Dpo(), update=RsLora(rank=4), optimiser=optimiser(2e-3))),
    ),
    "sft+dpo lora on preference": (
        DataKind.PREFERENCE,
        design(
            Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=FEW_EPOCHS),
            Stage(algorithm=Dpo(beta=0.3), update=Lora(rank=4), optimiser=optimiser(2e-3)),
        ),
    ),
    "sft lora on chat, fewer layers and heads": (
        DataKind.CHAT,
        design(Stage(algorithm=Sft(), update=Lora(rank=8), optimiser=FEW_EPOCHS), layers=4, kv_heads=2),
    ),
    "clm dora on pairs": (
        DataKind.PAIRS,
        design(Stage(algorithm=Clm(), update=Dora(rank=4), optimiser=FEW_EPOCHS)),
    ),
    "sft+dpo top layers on preference": (
        DataKind.PREFERENCE,
        design(
            Stage(algorithm=Sft(), update=TopLayers(layers=2), optimiser=optimiser(2e-3)),
            Stage(algorithm=Dpo(), update=TopLayers(layers=2), optimiser=optimiser(1e-3)),
        ),
    ),
}
ROWS_OF = {
    DataKind.TEXT: data_samples.text,
    DataKind.PAIRS: data_samples.pairs,
    DataKind.CHAT: data_samples.chat,
    DataKind.PREFERENCE: data_samples.preference,
}


class NobodyWatches:
    def after_step(self, progress: Progress) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Case:
    """A design that was trained, judged and exported."""

    assignment: Assignment
    metrics: Metrics
    test_metrics: Metrics
    artifacts: dict[str, Path]
    rows: list[dict[str, Any]]

    @property
    def merged(self) -> Path:
        return self.artifacts["merged"]

    def read(self, file: str) -> str:
        return (self.merged / file).read_text("utf-8")

    def judged(self, model: PreTrainedModel, rows: list[dict[str, Any]]) -> Metrics:
        tokenizer = AutoTokenizer.from_pretrained(self.merged)
        return judge(model, tokenizer, self.assignment.judge, rows, self.assignment.base.facts.context)


@pytest.fixture(scope="module", params=DESIGNS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    kind, chosen = DESIGNS[request.param]
    yield run(chosen, kind, tmp_path_factory.mktemp("trial"))
    torch.set_num_threads(threads)


def run(chosen: Design, kind: DataKind, folder: Path) -> Case:
    """What a worker does with a lease, without the service."""
    rows = ROWS_OF[kind](TRAIN_ROWS + VALIDATION_ROWS + TEST_ROWS)
    parts = [rows[:TRAIN_ROWS], rows[TRAIN_ROWS:-TEST_ROWS], rows[-TEST_ROWS:]]
    entry = BaseModelEntry(name="tiny-chat", source=str(BASE), facts=read_facts(BASE))
    base = warm.base(entry)
    spec = JudgeSpec(
        kind=kind,
        validation="0" * 64,
        test="1" * 64,
        objective="perplexity",
        grader=TextSimilarity(),
        window=48,
        max_tokens=64,
        max_new_tokens=8,
        max_rows=10,
        max_generations=4,
    )
    assignment = Assignment(
        trial_id="trial-abc",
        job_id="ftjob-abc",
        number=5,
        owner="worker",
        fence=1,
        seed=11,
        design=chosen,
        base=entry,
        train="2" * 64,
        judge=spec,
        checkpoint=None,
        device_seconds=0,
    )

    def examples(stage: Stage) -> list[Example]:
        render = renderer(base.tokenizer, spec, entry.facts.context)
        return [e for row in parts[0] for e in objective(stage.algorithm).examples(row, kind, render)]

    model = build(base.model, chosen.architecture)
    trained = train(model, chosen, examples, seed=assignment.seed, watch=NobodyWatches())
    adapter = folder / "peft"
    has_adapter = trained.whole_base and trained.applied.save_adapter(adapter)
    merged = trained.applied.merge()
    scores = [judge(merged, base.tokenizer, spec, part, entry.facts.context) for part in parts[1:]]
    exported: list[Exported] = export(
        folder / "export",
        model=merged,
        tokenizer=base.tokenizer,
        adapter=adapter if has_adapter else None,
        assignment=assignment,
        metrics=scores[0],
        test_metrics=scores[1],
        train_rows=parts[0],
        validation_rows=parts[1],
    )
    return Case(
        assignment=assignment,
        metrics=scores[0],
        test_metrics=scores[1],
        artifacts={artifact.kind: artifact.folder for artifact in exported},
        rows=rows,
    )


def load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    return model


def numbers(metrics: Metrics) -> dict[str, float]:
    return {name: value for name, value in metrics.model_dump().items() if isinstance(value, (int, float))}


def test_the_merged_model_scores_in_plain_transformers_as_the_trial_did(case: Case) -> None:
    model = load(case.merged)
    for recorded, rows in (
        (case.metrics, case.rows[TRAIN_ROWS:-TEST_ROWS]),
        (case.test_metrics, case.rows[-TEST_ROWS:]),
    ):
        assert numbers(case.judged(model, rows)) == pytest.approx(numbers(recorded), rel=1e-6)


def test_training_changed_the_model_that_is_exported(case: Case) -> None:
    untuned = build(warm.base(case.assignment.base).model, case.assignment.design.architecture)
    before = case.judged(untuned, case.rows[TRAIN_ROWS:-TEST_ROWS])
    assert abs(case.metrics.perplexity / before.perplexity - 1) > 0.05


def test_the_adapter_on_the_base_gives_the_logits_of_the_merged_model(case: Case) -> None:
    if "adapter" not in case.artifacts:
        assert case.assignment.design.architecture.edited or "lora" not in case.assignment.design.stages[0].update.kind
        pytest.skip("this design has no adapter for the registered base")
    folder = case.artifacts["adapter"]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(BASE)
    base = AutoModelForCausalLM.from_pretrained(config["base_model_name_or_path"], dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, folder).eval()
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)("What does the owl near the pond eat?")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, load(case.merged)(ids).logits, rtol=1e-4, atol=1e-4)


def test_weights_are_safetensors_only(case: Case) -> None:
    for folder in case.artifacts.values():
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert {file.suffix for file in files if b"\0" in file.read_bytes()} == {".safetensors"}


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


def test_the_card_tells_the_design_the_data_and_the_scores(case: Case) -> None:
    for artifact, folder in case.artifacts.items():
        card = (folder / "README.md").read_text("utf-8")
        _, front, page = card.split("---\n", 2)
        assert yaml.safe_load(front)["base_model"] == "tiny-chat"
        assert yaml.safe_load(front)["library_name"] == {"merged": "transformers", "adapter": "peft"}[artifact]
        for stage in case.assignment.design.stages:
            assert f"- **Learning algorithm**: `{stage.algorithm.kind}`, " in page
            assert f"- **Weight update**: `{stage.update.kind}`, " in page
        assert f"- **Task and data**: `{case.assignment.judge.kind}`, " in page
        assert f"{TRAIN_ROWS} training rows" in page
        assert f"| perplexity | {case.metrics.perplexity:.5g} | {case.test_metrics.perplexity:.5g} |" in page
        if case.metrics.reward is not None:
            assert (
                f"| {case.metrics.reward_name} | {case.metrics.reward:.4f} | {case.test_metrics.reward:.4f} |" in page
            )


def test_the_script_reaches_the_recorded_perplexity_without_luthier(case: Case, tmp_path: Path) -> None:
    script = case.merged / "reproduce" / "reproduce.py"
    done = subprocess.run(
        [sys.executable, "-P", str(script), "--out", str(tmp_path / "out")],
        env=os.environ | ALONE,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"validation perplexity (\S+) \(recorded (\S+)\)", done.stdout)
    assert found is not None
    assert float(found[2]) == pytest.approx(case.metrics.perplexity, abs=1e-4)
    assert float(found[1]) == pytest.approx(case.metrics.perplexity, rel=0.02)
    print(f"\n{case.assignment.design.summary()}: reproduced {found[1]}, recorded {found[2]}")


def test_the_script_stands_on_the_libraries_alone_and_is_formatted(case: Case) -> None:
    script = case.merged / "reproduce" / "reproduce.py"
    imports = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(script.read_text("utf-8")))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    assert imports - sys.stdlib_module_names <= {"torch", "transformers", "trl", "peft", "datasets"}
    for check in (["format", "--diff"], ["check", "--select", "E,F,I,N,W", "--ignore", "E501"]):
        command = ["ruff", check[0], "--isolated", "--no-cache", "--line-length", "120", *check[1:], str(script)]
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_rows_travel_in_their_order_and_only_those_that_were_scored(case: Case) -> None:
    folder = case.merged / "reproduce"
    assert read_rows((folder / "train.jsonl").read_bytes()) == case.rows[:TRAIN_ROWS]
    assert read_rows((folder / "validation.jsonl").read_bytes()) == case.rows[TRAIN_ROWS:][:10]


def test_the_requirements_are_the_versions_that_were_used(case: Case) -> None:
    lines = case.read("reproduce/requirements.txt").split()
    named = dict(line.split("==") for line in lines)
    assert {"torch", "transformers", "trl", "datasets"} <= set(named)
    assert named == {name: version(name).partition("+")[0] for name in named}


def test_generation_answers_as_the_judge_lets_the_model_answer() -> None:
    command = [sys.executable, "-P", "-m", "workers.generate", str(BASE), "How are you?", "--max-new-tokens", "12"]
    done = subprocess.run(command, env=os.environ | ALONE, capture_output=True, text=True, check=True)
    base = warm.base(BaseModelEntry(name="tiny-chat", source=str(BASE), facts=read_facts(BASE)))
    prompt = Renderer(base.tokenizer, window=64, max_tokens=64).prompt("How are you?")
    assert done.stdout.strip() == judge_generate(base.model, base.tokenizer, [prompt], 12)[0] != ""
    assert done.stderr == ""


def test_generation_puts_the_system_text_before_the_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    base = warm.base(BaseModelEntry(name="tiny-chat", source=str(BASE), facts=read_facts(BASE)))
    messages = [{"role": "system", "content": "You like cats."}, {"role": "user", "content": "How are you?"}]
    prompt = Renderer(base.tokenizer, window=64, max_tokens=64).prompt(messages)
    arguments = [str(BASE), "How are you?", "--system", "You like cats.", "--max-new-tokens", "12"]
    assert generate_main(arguments) == 0
    assert capsys.readouterr().out.strip() == judge_generate(base.model, base.tokenizer, [prompt], 12)[0]


def test_generation_from_a_folder_without_a_model_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate_main([str(tmp_path), "How are you?"]) == 2
    assert f"{tmp_path} has no config.json" in capsys.readouterr().err
