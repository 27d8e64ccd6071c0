"""Trying an update or an edit finds what would fail a trial, and says it in a sentence."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.design import Architecture
from luthier.errors import Infeasible
from luthier.updates import AdaLora, BitFit, Dora, Full, Ia3, Lora, Pissa, Prefix, Prompt, QLora, TopLayers, Update
from workers.cache import Base
from workers.train.architectures import build
from workers.train.layout_probe import keep_layout
from workers.train.layouts import Layout, RowLayout
from workers.train.try_out import try_edit, try_update
from workers.train.updates import lora

WORKING: list[Update] = [Full(), TopLayers(layers=1), Lora(rank=2), Dora(rank=2), Pissa(rank=2), Ia3(), AdaLora(rank=2)]
WORKING += [QLora(rank=2), Prompt(tokens=3), Prefix(tokens=3)]


@pytest.mark.parametrize("update", WORKING, ids=lambda update: update.kind)
def test_an_update_that_works_has_nothing_against_it(update: Update, tiny: Base) -> None:
    before = copy.deepcopy(tiny.model.state_dict())
    assert try_update(tiny.model, update) is None
    after = tiny.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("update", [Full(), Lora(rank=2), Ia3()], ids=lambda update: update.kind)
def test_an_encoder_is_tried_in_the_same_way(update: Update, encoder: Base) -> None:
    assert try_update(encoder.model, update) is None


def test_what_an_update_needs_is_the_reason(tiny: Base) -> None:
    assert "bitfit" in str(try_update(tiny.model, BitFit()))
    assert "rank" in str(try_update(tiny.model, Pissa(rank=4096)))
    padded = copy.deepcopy(tiny.model)
    keep_layout(padded, Layout(rows=RowLayout.PADDED))
    assert "virtual tokens" in str(try_update(padded, Prompt(tokens=3)))


def test_an_update_that_merges_wrongly_is_seen(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora.Adapter, "merge", lambda self: self.peft_model.unload())
    assert "merged" in str(try_update(tiny.model, Lora(rank=2)))


def test_an_adapter_that_loads_elsewhere_is_seen(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    own = lora.Adapter.save_adapter

    def save_another(self: lora.Adapter, folder: object) -> bool:
        with torch.no_grad():
            next(iter(self.trainable().values())).mul_(3)
        return own(self, folder)  # type: ignore[arg-type]

    monkeypatch.setattr(lora.Adapter, "save_adapter", save_another)
    assert "PEFT" in str(try_update(tiny.model, Lora(rank=2)))


def test_a_layer_that_learns_nothing_is_seen(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    own = lora.adapt

    def cut(*args: object) -> object:
        adapted = own(*args)  # type: ignore[arg-type]
        layer = adapted.get_base_model().model.layers[1].self_attn.q_proj
        layer.lora_A["default"].register_forward_hook(lambda _, __, output: output.detach() * 0)
        return adapted

    monkeypatch.setattr(lora, "adapt", cut)
    assert "layers.1.self_attn.q_proj" in str(try_update(tiny.model, Lora(rank=2)))


def test_what_moves_besides_the_update_is_seen(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def spill(self: lora.Adapter, step: int) -> None:
        with torch.no_grad():
            self.model.get_input_embeddings().weight.mul_(1.1)

    monkeypatch.setattr(lora.Adapter, "after_step", spill)
    assert "embed_tokens" in str(try_update(tiny.model, Lora(rank=2)))


def test_any_failure_becomes_a_reason(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("nothing of that name")

    monkeypatch.setattr(lora, "adapt", fail)
    assert "KeyError" in str(try_update(tiny.model, Lora(rank=2)))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("element 3 of tensors does not require grad and does not have a grad_fn"), "scores depend"),
        (TypeError("unsupported operand type(s) for *: 'Parameter' and 'NoneType'"), "gradient"),
        (RuntimeError("shape '[31, 4, 2]' is invalid for input of size 0"), "inputs"),
        (RuntimeError("The size of tensor a (6) must match the size of tensor b (12) at dimension 2"), "product"),
        (ValueError("Please specify `num_attention_heads` in `peft_config`"), "configuration"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_known_failures_are_told_in_words(
    error: Exception, words: str, tiny: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(lora, "adapt", fail)
    reason = str(try_update(tiny.model, Lora(rank=2)))
    assert words in reason
    assert type(error).__name__ not in reason
    assert str(error) not in reason


def test_the_text_part_of_a_multimodal_model_keeps_its_shape() -> None:
    text = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 4, "head_dim": 8, "max_position_embeddings": 64,
    }  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("gemma3", text_config=text, vision_config=vision)
    ).eval()
    for edit in (Architecture(base="tiny", layers=2), Architecture(base="tiny", kv_heads=2)):
        with pytest.raises(Infeasible, match="images"):
            build(model, edit)


COMMON_EDITS = [
    Architecture(base="tiny", layers=3, depth_rule="block_influence"),
    Architecture(base="tiny", kv_heads=2),
]
OTHER_EDITS = [
    Architecture(base="tiny", layers=3),
    Architecture(base="tiny", window=8),
    Architecture(base="tiny", rope_factor=2),
    Architecture(base="tiny", rope_factor=2, rope_rule="yarn"),
]
EDITS = [*COMMON_EDITS, *(pytest.param(edit, marks=pytest.mark.slow) for edit in OTHER_EDITS)]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: str(edit.model_dump(exclude_defaults=True)))
def test_edits_of_a_llama_work(edit: Architecture, tiny: Base) -> None:
    assert try_edit(tiny.model, edit) is None


def test_an_edit_that_the_family_does_not_have_says_why(encoder: Base, tiny: Base) -> None:
    assert "60" in str(try_edit(tiny.model, Architecture(base="tiny", layers=60)))
    assert "window" in str(try_edit(encoder.model, Architecture(base="tiny", window=8)))
