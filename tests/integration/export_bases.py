"""Base models of the designs that are exported: the tiny ones, changed in one respect each."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from luthier.models.base_model import BaseModelEntry, read_facts
from tests.conversations import speaking
from workers import cache
from workers.import_model.standard_config import standard


def changed(
    entry: BaseModelEntry, change: Callable[[PreTrainedModel], PreTrainedModel], folder: Path
) -> BaseModelEntry:
    pristine = cache.base(entry)
    change(pristine.model).save_pretrained(folder)
    pristine.tokenizer.save_pretrained(folder)
    return BaseModelEntry(name=entry.name, source=str(folder), facts=read_facts(folder))


def speaks(entry: BaseModelEntry, template: str, folder: Path) -> BaseModelEntry:
    """The base with a published chat template, and embeddings of its tokens."""
    model, tokenizer = copy.deepcopy(cache.base(entry).model), speaking(cache.base(entry).tokenizer, template)
    torch.manual_seed(3)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return BaseModelEntry(name=entry.name, source=str(folder), facts=read_facts(folder))


def around(entry: BaseModelEntry, folder: Path) -> BaseModelEntry:
    """A model for images and text, with the tokenizer of the base."""
    tokenizer = cache.base(entry).tokenizer
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 16,
        "pad_token_id": tokenizer.pad_token_id, "sliding_window": 512, "max_position_embeddings": 512,
        "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    torch.manual_seed(3)
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return BaseModelEntry(name=entry.name, source=str(folder), facts=read_facts(folder, standard(folder)))


def without_head(entry: BaseModelEntry, folder: Path) -> BaseModelEntry:
    pristine = cache.base(entry)
    pristine.model.base_model.save_pretrained(folder)
    pristine.tokenizer.save_pretrained(folder)
    return BaseModelEntry(name=entry.name, source=str(folder), facts=read_facts(folder))


def without_template(entry: BaseModelEntry, folder: Path) -> BaseModelEntry:
    source = shutil.copytree(entry.source, folder / "model", ignore=shutil.ignore_patterns("chat_template.jinja"))
    return BaseModelEntry(name=entry.name, source=str(source), facts=read_facts(source))
