"""What is read of a model from its files, without loading it."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from luthier.models.base_model import BaseModelEntry, read_facts
from tests.conftest import TINY


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({}, 512),
        ({"attention_bias": True}, None),
        ({"mlp_bias": True}, None),
        ({"model_type": "mistral", "sliding_window": None}, 512),
        ({"model_type": "mistral", "sliding_window": 64}, 64),
        ({"model_type": "mistral", "max_position_embeddings": 8192}, 4096),
        ({"model_type": "qwen3"}, 512),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 64}, None),
        ({"model_type": "gpt2"}, None),
    ],
    ids=str,
)
def test_how_many_tokens_each_one_sees_where_a_family_can_say_so(
    changes: dict[str, Any], window: int | None, tiny_entry: BaseModelEntry, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_entry.source, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    assert read_facts(folder).attention_window == window


@pytest.mark.parametrize(
    ("changes", "rope"),
    [
        ({}, "plain"),
        ({"model_type": "qwen3", "rope_parameters": None, "rope_theta": 1e6, "rope_scaling": None}, "plain"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "scaled"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "scaled"),
        ({"model_type": "gpt2"}, None),
    ],
    ids=str,
)
def test_whether_positions_are_rotary_and_scaled_already(
    changes: dict[str, Any], rope: str | None, tiny_entry: BaseModelEntry, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_entry.source, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    assert read_facts(folder).rope == rope


def test_an_output_head_of_its_own_is_one_more_table_of_all_tokens(tiny_entry: BaseModelEntry, tmp_path: Path) -> None:
    assert tiny_entry.facts.tied
    folder = shutil.copytree(tiny_entry.source, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    assert read_facts(folder).tied  # there is no tensor for a head
    beside(folder, {"lm_head.weight": torch.zeros(4096, 128)})
    assert not read_facts(folder).tied


def beside(folder: Path, more: dict[str, torch.Tensor]) -> None:
    """Put these tensors into a second file, with an index of both."""
    first = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "first.safetensors")
    save_file(more, folder / "second.safetensors", metadata={"format": "pt"})
    places = {**dict.fromkeys(first, "first.safetensors"), **dict.fromkeys(more, "second.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.bias", "transformer.h.0.ln_1.bias"])
def test_a_tensor_named_bias_in_any_of_the_files_means_biases(
    name: str, tiny_entry: BaseModelEntry, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_entry.source, tmp_path / "model")
    beside(folder, {name: torch.zeros(128)})
    facts = read_facts(folder)
    assert facts.biases
    assert facts.parameters == tiny_entry.facts.parameters + 128


def test_files_beside_a_single_one_are_not_part_of_the_model(tiny_entry: BaseModelEntry, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_entry.source, tmp_path / "model")
    shutil.copy(folder / "model.safetensors", folder / "model-00001-of-00002.safetensors")
    save_file({"more.bias": torch.zeros(128)}, folder / "left.safetensors", metadata={"format": "pt"})
    assert read_facts(folder) == tiny_entry.facts


def test_a_model_without_a_tensor_named_bias_has_none(tiny_entry: BaseModelEntry) -> None:
    weights = load_file(Path(tiny_entry.source) / "model.safetensors")
    assert tiny_entry.facts.parameters == sum(tensor.numel() for tensor in weights.values())
    assert not tiny_entry.facts.biases


BOTH = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("template", "speaks", "tools"),
    [
        (None, False, False),
        ("", False, False),
        (BOTH, True, False),
        ((TINY / "chat_template.jinja").read_text(), True, True),
        ([{"name": "default", "template": BOTH}], True, False),
        ([{"name": "default", "template": "{{ messages[0].content }}"}], False, False),
        ([{"name": "rag", "template": BOTH}], False, False),
        (
            [
                {"name": "default", "template": BOTH},
                {
                    "name": "tool_use",
                    "template": (files("trl") / "chat_templates" / "qwen2_5.jinja").read_text("utf-8"),
                },
            ],
            True,
            True,
        ),
    ],
)
def test_whether_conversations_and_tools_can_be_shown(
    template: Any, speaks: bool, tools: bool, tiny_entry: BaseModelEntry, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_entry.source, tmp_path / "model", ignore=shutil.ignore_patterns("*.jinja"))
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    facts = read_facts(folder)
    assert (facts.chat_template, facts.tools) == (speaks, tools)


def test_a_template_for_tools_in_a_file_of_its_own_is_found(tiny_entry: BaseModelEntry, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_entry.source, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert not read_facts(folder).tools
    (folder / "additional_chat_templates").mkdir()
    own = (files("trl") / "chat_templates" / "qwen2_5.jinja").read_text("utf-8")
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(own, encoding="utf-8")
    assert read_facts(folder).tools
