"""Base models that are not a folder yet: GGUF files, which are converted, and models of the hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from luthier.errors import UserError
from luthier.models import sources
from luthier.models.base_model import BaseModelEntry, read_facts
from luthier.models.sources import local_folder
from tests import fake_hub, tiny_gguf
from tests.integration.service_harness import TINY_CHAT, Service
from tests.textbook import largest_difference, logps
from workers.cache import Base
from workers.import_model.gguf import convert, limits

pytest_plugins = ("tests.integration.service_fixtures",)

IDS = (1, 55, 901, 7, 7, 3000, 12)
TEXT = "<|im_start|>user\nWhat does the owl eat?<|im_end|>\n  Größe 🙂"
F32, Q8_0 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0


@torch.no_grad()
def test_a_gguf_file_becomes_a_plain_model_that_computes_the_same(tiny: Base, tmp_path: Path) -> None:
    tiny_gguf.write(TINY_CHAT, tmp_path / "tiny.gguf", F32)
    convert(tmp_path / "tiny.gguf", tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert largest_difference(logps(model, IDS), logps(tiny.model, IDS)) < 1e-5
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer(TEXT)["input_ids"] == tiny.tokenizer(TEXT)["input_ids"]
    assert tokenizer.chat_template == tiny.tokenizer.chat_template
    facts = read_facts(tmp_path / "model")
    assert (facts.origin, facts.quantised, facts.context) == ("tiny.gguf", None, 512)
    model.save_pretrained(tmp_path / "again")


@torch.no_grad()
def test_what_quantisation_lost_is_lost_and_the_facts_say_so(tiny: Base, tmp_path: Path) -> None:
    tiny_gguf.write(TINY_CHAT, tmp_path / "tiny.gguf", Q8_0)
    convert(tmp_path / "tiny.gguf", tmp_path / "model")
    assert read_facts(tmp_path / "model").quantised == "Q8_0"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert 1e-5 < largest_difference(logps(model, IDS), logps(tiny.model, IDS)) < 0.5


def test_a_padding_token_that_is_the_end_token_is_replaced(tmp_path: Path) -> None:
    """The file says pad = eos; with that, trainers that mask padding away never teach a model to stop."""
    tiny_gguf.write(TINY_CHAT, tmp_path / "tiny.gguf", F32)
    convert(tmp_path / "tiny.gguf", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    for file in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "model" / file).read_text())["pad_token_id"] == 0


def test_a_file_that_cannot_be_converted_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    whole, other, cut, part = (tmp_path / f"{name}.gguf" for name in ("whole", "other", "cut", "part"))
    tiny_gguf.write(TINY_CHAT, whole, F32)
    other.write_bytes(b"no model at all, but long enough to be read")
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    tiny_gguf.write(TINY_CHAT, part, F32, without="blk.3.ffn_up.weight")
    for file, why in (
        (other, "is no GGUF file"),
        (cut, "is cut off"),
        (part, r"lacks 1 .*model\.layers\.3\.mlp\.up_proj\.weight.*llama-gguf-split --merge"),
    ):
        with pytest.raises(UserError, match=rf"{file.name} {why}"):
            convert(file, tmp_path / "model")
        assert not (tmp_path / "model").exists()


def test_the_service_converts_a_gguf_file_once_and_lists_what_it_was(bare: Service, tmp_path: Path) -> None:
    tiny_gguf.write(TINY_CHAT, tmp_path / "tiny.gguf", Q8_0)
    model = bare.client.add_model("tiny", str(tmp_path / "tiny.gguf"))
    assert model.facts is not None
    assert (model.facts.origin, model.facts.quantised) == ("tiny.gguf", "Q8_0")
    assert Path(str(model.source)).parent == bare.context.settings.home_dir / "models"
    weights = Path(str(model.source)) / "model.safetensors"
    written = weights.stat().st_mtime_ns
    (tmp_path / "tiny.gguf").rename(tmp_path / "renamed.gguf")
    shutil.copy(tmp_path / "renamed.gguf", tmp_path / "tiny.gguf")
    assert bare.client.add_model("again", str(tmp_path / "tiny.gguf")).source == model.source
    assert weights.stat().st_mtime_ns == written


def test_the_command_line_converts_with_its_progress_shown_and_lists_what_it_was(bare: Service, tmp_path: Path) -> None:
    tiny_gguf.write(TINY_CHAT, tmp_path / "tiny.gguf", Q8_0)

    def luthier(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "luthier", *arguments]
        env = os.environ | {"LUTHIER_SERVER": bare.url, "LUTHIER_HOME": str(tmp_path / "mine"), "COLUMNS": "200"}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    added = luthier("models", "add", "tiny", "tiny.gguf")
    assert added.returncode == 0, added.stderr
    assert "tiny: LlamaForCausalLM, 1.8 M parameters, de-quantised from Q8_0" in added.stdout
    assert "Converting tiny.gguf" in added.stderr
    assert "tokenizer" in added.stderr  # a step of the service
    (model,) = bare.client.models()
    assert Path(str(model.source)).parent == tmp_path / "mine" / "models"
    assert "tiny.gguf, de-quantised from Q8_0" in luthier("models", "list").stdout
    missing = luthier("models", "add", "none", "other.gguf")
    assert (missing.returncode, "other.gguf' does not exist" in missing.stderr.replace("\n", "")) == (2, True)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("/no/such/folder", "'/no/such/folder' does not exist"),
        ("/no/such/file.gguf", "does not exist"),
        (str(TINY_CHAT / "config.json"), "config.json' is none of these"),
        ("tests/models/tiny-chat", "'tests/models/tiny-chat' is none of these"),
        ("https://example.org/model", "is none of these"),
    ],
)
def test_a_source_that_is_nothing_is_refused_with_what_it_may_be(bare: Service, source: str, why: str) -> None:
    with pytest.raises(UserError, match="absolute path.*GGUF.*hub id.*" + why) as refused:
        bare.client.add_model("nothing", source)
    assert refused.value.param == "source"


def test_the_service_says_why_a_gguf_file_cannot_be_converted(bare: Service, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"no model at all, but long enough to be read")
    with pytest.raises(UserError, match=r"bad\.gguf is no GGUF file"):
        bare.client.add_model("bad", str(tmp_path / "bad.gguf"))
    assert bare.client.models() == []


def test_a_conversion_has_a_time_limit_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_gguf.write(TINY_CHAT, tmp_path / "tiny.gguf", Q8_0)
    monkeypatch.setattr(sources, "conversion_seconds", lambda size: 0.2)
    with pytest.raises(UserError, match=r"tiny\.gguf|model.*0\.2 seconds") as refused:
        local_folder(str(tmp_path / "tiny.gguf"), tmp_path / "home")
    assert refused.value.param == "source"
    assert [each.name for each in (tmp_path / "home" / "models").iterdir() if not each.name.startswith(".")] == []
    monkeypatch.undo()
    steps: list[str] = []
    folder = local_folder(str(tmp_path / "tiny.gguf"), tmp_path / "home", steps.append)
    assert (folder / "config.json").is_file()
    assert "tiny.gguf" in steps[0]


def test_the_limits_of_a_conversion_grow_with_the_file(tmp_path: Path) -> None:
    small, large = tmp_path / "small.gguf", tmp_path / "large.gguf"
    small.write_bytes(b"GGUF")
    with large.open("wb") as file:
        file.truncate(4 * 10**9)
    least, most = (limits({"gguf": str(file)}) for file in (small, large))
    assert least.cpu_seconds == pytest.approx(sources.CONVERSION_SECONDS, abs=1)
    assert most.cpu_seconds > 2 * least.cpu_seconds
    assert most.memory_bytes > most.file_bytes > 8 * 4 * 10**9  # four bits become a float32


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """What a model's page on the hub holds beside its model."""
    folder = shutil.copytree(TINY_CHAT, tmp_path / "published")
    (folder / "modeling_own.py").write_text("raise SystemExit('code of a stranger')")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"not for us")
    (folder / "consolidated.safetensors").write_bytes(b"the same once more")
    return folder


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Child processes may use the hub, and write nothing outside of the test's folder."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-home"))
    return monkeypatch


def test_a_model_of_the_hub_is_fetched_at_a_fixed_revision_without_code(
    bare: Service, published: Path, online: pytest.MonkeyPatch, tiny_entry: BaseModelEntry
) -> None:
    with fake_hub.hub("zoo/tiny-chat", published) as (address, asked):
        online.setenv("HF_ENDPOINT", address)
        model = bare.client.add_model("tiny", "zoo/tiny-chat")
        first = list(asked)
        pinned = bare.client.add_model("pinned", f"zoo/tiny-chat@{fake_hub.REVISION}")
    assert model.facts == tiny_entry.facts.model_copy(update={"origin": f"zoo/tiny-chat@{fake_hub.REVISION}"})
    folder = Path(str(model.source))
    assert folder == bare.context.settings.home_dir / "models" / f"zoo--tiny-chat-{fake_hub.REVISION[:12]}"
    assert {file.name for file in folder.iterdir()} == {file.name for file in TINY_CHAT.iterdir()} | {"origin.json"}
    assert (folder / "model.safetensors").read_bytes() == (TINY_CHAT / "model.safetensors").read_bytes()
    assert pinned.source == model.source
    assert asked == first  # nothing is fetched twice


def test_what_the_hub_does_not_have_is_said(bare: Service, published: Path, online: pytest.MonkeyPatch) -> None:
    (published / "model.safetensors").unlink()
    (published / "consolidated.safetensors").unlink()
    with fake_hub.hub("zoo/pickled", published) as (address, asked):
        online.setenv("HF_ENDPOINT", address)
        for source, why in (
            ("zoo/pickled", r"zoo/pickled .*\.safetensors"),
            ("zoo/other", "zoo/other .*HF_TOKEN"),
            ("zoo/pickled@v9", "zoo/pickled .*'v9'"),
        ):
            with pytest.raises(UserError, match=why):
                bare.client.add_model("none", source)
    assert asked == []
    assert bare.client.models() == []


def test_without_a_network_the_error_says_so_and_what_to_do(
    online: pytest.MonkeyPatch, tmp_path: Path, published: Path
) -> None:
    with fake_hub.hub("zoo/tiny", published) as (address, _):
        pass  # nobody listens there any more
    online.setenv("HF_ENDPOINT", address)
    with pytest.raises(UserError, match=f"zoo/tiny .*{address}.*luthier models add NAME FOLDER"):
        local_folder("zoo/tiny", tmp_path)
    online.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE.*luthier models add NAME FOLDER"):
        local_folder("zoo/tiny", tmp_path)
