"""QLoRA: low-rank adapters over a frozen base in four bits (Dettmers et al. 2023), through bitsandbytes and PEFT.

Quantised is what the adapters stand on: all linear layers but the output head, in NF4 with quantised scales. What is
judged and exported is that rounded base with the adapters added, as plain weights.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from luthier.design import QLora
from luthier.errors import Infeasible
from workers.train.updates.lora import EVERYWHERE, Adapter, adapt


class Quantised(Adapter):
    """Adapters whose base is not the registered one any more, but one that is rounded to four bits."""

    def merge(self) -> PreTrainedModel:
        """Plain layers of the rounded weights with what the adapters add."""
        functional, model = _bitsandbytes().functional, self.model
        for name, module in list(model.named_modules()):
            if isinstance(module, LoraLayer):
                packed = module.get_base_layer()
                weight = functional.dequantize_4bit(packed.weight.data, packed.weight.quant_state)
                plain = torch.nn.Linear(packed.in_features, packed.out_features, packed.bias is not None)
                plain.weight = torch.nn.Parameter(weight + module.get_delta_weight("default").to(weight.dtype))
                plain.bias = packed.bias
                model.set_submodule(name, plain.requires_grad_(False).to(weight.device))
        vars(model).pop("peft_config", None)  # what PEFT leaves on a model that has its layers
        return model

    def save_adapter(self, folder: Path) -> bool:
        """None: it would stand on the registered base, which is not rounded, and score otherwise."""
        return False


def qlora(model: PreTrainedModel, update: QLora, seed: int) -> Quantised:
    """Quantise the linear layers and put adapters on them. Raises Infeasible where bitsandbytes is missing."""
    _quantise(model)
    vars(model)["is_loaded_in_4bit"] = True  # PEFT looks here to choose its layers
    try:
        config = LoraConfig(r=update.rank, lora_alpha=update.alpha, lora_dropout=0.0, **EVERYWHERE)
        return Quantised(adapt(model, config, seed))
    finally:
        del vars(model)["is_loaded_in_4bit"]


def _quantise(model: PreTrainedModel) -> None:
    layers, head = _bitsandbytes().nn, model.get_output_embeddings()
    compute = torch.bfloat16 if model.device.type == "cuda" else torch.float32  # as the rest of the forward pass
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and module is not head:
            packed = layers.Linear4bit(
                module.in_features,
                module.out_features,
                module.bias is not None,
                compute_dtype=compute,
                compress_statistics=True,
                quant_type="nf4",
            )
            packed.weight = layers.Params4bit(
                module.weight.detach().cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True
            )
            packed.bias = module.bias
            model.set_submodule(name, packed.to(model.device))


def _bitsandbytes() -> Any:
    """The library, which comes with the extra `cuda`."""
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise Infeasible(f"qlora needs the package bitsandbytes on the worker: {error}") from error
