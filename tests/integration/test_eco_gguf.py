"""A job's winner as one GGUF file with an Ollama Modelfile: read back, it is the very model that was exported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from luthier.blobs import Blobs
from luthier.errors import NotFound, UserError
from luthier.worker_protocol import Artifact, Assignment
from service.exports.gguf import GgufFile
from tests.integration.service_harness import TINY_CHAT, FakeWorker, Service, serving, sums
from tests.textbook import largest_difference, logps
from workers.cache import Base
from workers.train.architectures.edits import scale_rope, set_window

IDS = (1, 55, 901, 7, 7, 3000, 12)
pytestmark = pytest.mark.xdist_group("eco-gguf")
TEXT = "<|im_start|>user\nWhat does the owl eat? 1234<|im_end|>\n  Größe 🙂 it's\n\n \tlate"


class Exporter(FakeWorker):
    """Its trials export a real model."""

    def export(self, assignment: Assignment) -> tuple[Artifact, ...]:
        files = {path.name: self.upload(path) for path in TINY_CHAT.iterdir()}
        return (Artifact(kind="merged", files=files | {"README.md": self.put("the card")}, bytes=1),)

    def upload(self, path: Path) -> str:
        return str(self.http.put("/v1/blobs", content=path.read_bytes()).json()["digest"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """A service that keeps its files elsewhere than in a folder, and a job whose winner is the tiny chat model."""
    with serving(tmp_path_factory.mktemp("gguf"), blobs_url="memory://gguf") as service:
        service.add_model()
        worker = Exporter(service.http)
        worker.register()
        job = service.submit(sums(), search={"trials": 2, "confirmations": 0})
        assert worker.work_until_ended(service.client, job) == "succeeded"
        yield service, job


@pytest.fixture(scope="module")
def exported(finished: tuple[Service, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command line writes."""
    service, job = finished
    folder = tmp_path_factory.mktemp("exported") / "model"
    command = [sys.executable, "-P", "-m", "luthier", "export", job, str(folder), "--format", "gguf"]
    env = os.environ | {"LUTHIER_SERVER": service.url}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@torch.no_grad()
def test_the_exported_file_computes_what_the_model_computes(exported: Path, tiny: Base) -> None:
    model = AutoModelForCausalLM.from_pretrained(exported, gguf_file="model.gguf", dtype=torch.float32)
    assert largest_difference(logps(model, IDS), logps(tiny.model, IDS)) < 1e-6
    tokenizer = AutoTokenizer.from_pretrained(exported, gguf_file="model.gguf")
    assert tokenizer(TEXT)["input_ids"] == tiny.tokenizer(TEXT)["input_ids"]
    assert tokenizer.chat_template == tiny.tokenizer.chat_template
    assert tokenizer.eos_token == "<|im_end|>"


def test_the_modelfile_says_what_ollama_cannot_read_from_the_file(exported: Path) -> None:
    assert (exported / "Modelfile").read_text() == (
        "FROM ./model.gguf\n"
        'TEMPLATE """{{ range .Messages }}'
        '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n'
        '{{ end }}{{ end }}<|im_start|>assistant\n"""\n'
        'PARAMETER stop "<|im_end|>"\n'
    )
    assert "ollama create" in (exported / "README.md").read_text()
    assert (exported / "MODEL_CARD.md").read_text() == "the card"


def test_a_form_that_the_trial_does_not_have_is_named(finished: tuple[Service, str]) -> None:
    service, job = finished
    with pytest.raises(NotFound, match="no adapter that fits"), service.client.artifact(job, "adapter"):
        pass


def written(folder: Path, model: Any, tokenizer: Any, change: Callable[[dict[str, Any]], None] | None = None) -> bytes:
    """The GGUF file of a model, its tokenizer.json changed before."""
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    if change is not None:
        path = folder / "model" / "tokenizer.json"
        changed = json.loads(path.read_text())
        change(changed)
        path.write_text(json.dumps(changed))
    blobs = Blobs(f"file://{folder / 'blobs'}")
    files = {path.name: blobs.put_bytes(path.read_bytes()) for path in (folder / "model").iterdir()}
    file = GgufFile(blobs, files, "a model")
    content = b"".join(file)
    assert len(content) == file.bytes
    return content


@torch.no_grad()
@pytest.mark.parametrize("rule", ["linear", "yarn"])
def test_heads_that_share_keys_and_rope_scaling_are_kept(tiny: Base, tmp_path: Path, rule: Any) -> None:
    config = scale_rope(tiny.model.config, 4.0, rule)
    config.num_key_value_heads, config.num_hidden_layers, config.tie_word_embeddings = 2, 2, False
    torch.manual_seed(0)
    model: Any = type(tiny.model)(config)
    (tmp_path / "model.gguf").write_bytes(written(tmp_path, model, tiny.tokenizer))
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    # transformers reads no scaling from a GGUF file, so the weights are compared where they do the same; that llama.cpp
    # reads it is in the metadata
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    content = (tmp_path / "model.gguf").read_bytes()
    assert b"llama.rope.scaling.type" in content
    assert rule.encode() in content


def test_what_llama_cpp_would_compute_otherwise_is_refused_with_the_reason(tiny: Base, tmp_path: Path) -> None:
    def split_at_spaces(tokenizer: dict[str, Any]) -> None:
        tokenizer["pre_tokenizer"] = {"type": "WhitespaceSplit"}

    def byte_fallback(tokenizer: dict[str, Any]) -> None:
        tokenizer["model"]["byte_fallback"] = True

    windowed = AutoModelForCausalLM.from_config(set_window(tiny.model.config, 64))
    config = tiny.model.config.from_dict(tiny.model.config.to_dict() | {"hidden_act": "gelu"})
    for number, (model, change, why) in enumerate(
        (
            (windowed, None, "would ignore its attention window of 64 tokens"),
            (type(tiny.model)(config), None, "its activation is gelu"),
            (tiny.model, split_at_spaces, "does not know its pre-tokenizer"),
            (tiny.model, byte_fallback, "BPE with byte fallback"),
        )
    ):
        with pytest.raises(UserError, match=why) as refused:
            written(tmp_path / str(number), model, tiny.tokenizer, change)
        assert refused.value.param == "format"


def test_an_encoder_is_refused_with_what_can_be_written(encoder: Base, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it is a \w+ForMaskedLM, not one of LlamaForCausalLM, "):
        written(tmp_path, encoder.model, encoder.tokenizer)
