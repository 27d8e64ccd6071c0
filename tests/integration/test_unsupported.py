"""A model whose architecture does not allow all: from its folder to the plan, the pages and the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from luthier.cli import app
from luthier.errors import IllegalDesign
from tests import data_samples
from tests.integration.service_harness import TINY_CHAT, Service
from tests.live import Live, eventually

pytest_plugins = ("tests.integration.service_fixtures",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2, which has one matrix for queries, keys and values."""
    made = tmp_path_factory.mktemp("model") / "gpt2"
    torch.manual_seed(0)
    sizes = {"vocab_size": 4096, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **sizes)).save_pretrained(made)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY_CHAT / name, made)
    return made


def test_what_is_not_possible_is_shown_with_the_reason_and_not_searched(bare: Service, folder: Path) -> None:
    model = bare.client.add_model("gpt2", str(folder))
    assert model.facts is not None
    unsupported = model.facts.unsupported or {}
    assert "k_proj" in unsupported["kv_heads"]
    assert {"lora", "full"}.isdisjoint(unsupported)
    page = bare.http.get("/models").text
    assert "data-unsupported" in page
    assert "kv_heads" in page

    runner = CliRunner()
    shown = runner.invoke(app, ["models", "show", "gpt2", "--server", bare.url], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "k_proj" in shown.output
    possible = {words[0]: " ".join(words[1:3]) for line in shown.output.splitlines() if len(words := line.split()) > 1}
    assert possible["qlora"] == "with CUDA"
    assert possible["lora"] == "yes"
    listed = runner.invoke(app, ["models", "list", "--json", "--server", bare.url])
    assert json.loads(listed.output)[0]["facts"]["unsupported"] == unsupported

    with pytest.raises(IllegalDesign, match="k_proj") as refused:
        bare.submit(search={"trials": 3, "confirmations": 0, "pin": {"kv_heads": [1]}})
    assert refused.value.param == "search.pin.kv_heads"
    space = bare.client.design_space(kind="text")
    updates = {choice.value: choice for axis in space.axes if axis.name == "update" for choice in axis.choices}
    assert not updates["oft"].legal
    assert updates["lora"].legal


def test_a_whole_job_on_such_a_model_trains_it(folder: Path, tmp_path: Path) -> None:
    live = Live(tmp_path / "home")
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in data_samples.text(60)))
    client = live.start()
    try:
        model = client.add_model("gpt2", str(folder))
        assert model.facts is not None
        assert model.facts.unsupported
        job = client.create_job(
            client.upload(file).id, search={"trials": 3, "confirmations": 0, "pin": {"epochs": [1]}}
        )
        ended = eventually(lambda: (now := client.job(job.id)).status.terminal and now, 400)
        assert ended.status == "succeeded", [event.message for event in client.events(job.id)]
        trials = client.trials(job.id)
        assert {trial.state for trial in trials} <= {"complete", "pruned"}, [trial.error for trial in trials]
        best = client.best(job.id)
        assert best.base_metrics is not None
        assert best.metrics.bits_per_byte < best.base_metrics.bits_per_byte
    finally:
        live.close()
