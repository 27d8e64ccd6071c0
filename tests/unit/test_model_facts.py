"""What is read of a model from its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from luthier.model import BaseModelEntry, read_facts


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
