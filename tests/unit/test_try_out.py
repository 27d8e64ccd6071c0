"""Trying an update or an edit finds what would fail a trial, and says it in a sentence."""

from __future__ import annotations

import copy

import pytest
import torch

from luthier.design import Architecture
from luthier.updates import AdaLora, BitFit, Dora, Full, Ia3, Lora, Pissa, Prefix, Prompt, QLora, TopLayers, Update
from workers.cache import Base
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


EDITS = [
    Architecture(base="tiny", layers=3),
    Architecture(base="tiny", layers=3, depth_rule="block_influence"),
    Architecture(base="tiny", kv_heads=2),
    Architecture(base="tiny", window=8),
    Architecture(base="tiny", rope_factor=2),
    Architecture(base="tiny", rope_factor=2, rope_rule="yarn"),
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: str(edit.model_dump(exclude_defaults=True)))
def test_edits_of_a_llama_work(edit: Architecture, tiny: Base) -> None:
    assert try_edit(tiny.model, edit) is None


def test_an_edit_that_the_family_does_not_have_says_why(encoder: Base, tiny: Base) -> None:
    assert "60" in str(try_edit(tiny.model, Architecture(base="tiny", layers=60)))
    assert "window" in str(try_edit(encoder.model, Architecture(base="tiny", window=8)))
