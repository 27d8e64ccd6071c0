"""QLoRA (Dettmers et al. 2023): low-rank adapters over a frozen 4-bit base, through bitsandbytes and PEFT.

All linear layers except the output head are quantised to NF4 with double quantisation. The model that is judged and
exported is the de-quantised base with the adapters merged in, as plain weights.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from luthier.errors import Infeasible
from luthier.updates import QLora
from workers.train.updates.base import implements
from workers.train.updates.lora import EVERYWHERE, Adapter, adapt


class QLoraAdapter(Adapter):
    """Adapters on a base that was quantised, and so differs from the registered one."""

    def merge(self) -> PreTrainedModel:
        """Replace each quantised layer by a plain one: its de-quantised weight plus the adapter's."""
        functional, model = _bitsandbytes().functional, self.model
        for name, module in list(model.named_modules()):
            if isinstance(module, LoraLayer):
                packed = module.get_base_layer()
                weight = functional.dequantize_4bit(packed.weight.data, packed.weight.quant_state)
                plain = torch.nn.Linear(packed.in_features, packed.out_features, packed.bias is not None)
                plain.weight = torch.nn.Parameter(weight + module.get_delta_weight("default").to(weight.dtype))
                plain.bias = packed.bias
                model.set_submodule(name, plain.requires_grad_(False).to(weight.device))
        vars(model).pop("peft_config", None)  # PEFT leaves it on a model that had its layers
        return model

    def save_adapter(self, folder: Path) -> bool:
        """Save nothing: users would load the adapter on the original base, where it scores differently."""
        return False


@implements(QLora, peft_config="LoraConfig")
def qlora(model: PreTrainedModel, update: QLora, seed: int) -> QLoraAdapter:
    """Quantise the linear layers and add adapters to them. Raises Infeasible if bitsandbytes is not installed."""
    _quantise(model)
    vars(model)["is_loaded_in_4bit"] = True  # PEFT chooses its layer classes by this flag
    try:
        config = LoraConfig(r=update.rank, lora_alpha=update.alpha, lora_dropout=0.0, **EVERYWHERE)
        return QLoraAdapter(adapt(model, config, seed))
    finally:
        del vars(model)["is_loaded_in_4bit"]


def _quantise(model: PreTrainedModel) -> None:
    layers, head = _bitsandbytes().nn, model.get_output_embeddings()
    compute = torch.bfloat16 if model.device.type == "cuda" else torch.float32  # as in the rest of the forward pass
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
    """Import bitsandbytes, which the extra `cuda` installs. Raises Infeasible without it."""
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise Infeasible(f"qlora needs the package bitsandbytes on the worker (extra `cuda`): {error}") from error
