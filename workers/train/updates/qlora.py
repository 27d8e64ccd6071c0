"""QLoRA (Dettmers et al. 2023): low-rank adapters over a frozen 4-bit base, through bitsandbytes and PEFT.

The linear layers that get adapters are quantised to NF4 with double quantisation. The model that is judged and
exported is the de-quantised base with the adapters merged in, as plain weights.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from luthier.errors import Infeasible
from luthier.updates import QLora
from workers.train.updates.base import implements
from workers.train.updates.lora import Adapter, adapt
from workers.train.updates.targets import is_turned, linear_layers, places, shape_of


class QLoraAdapter(Adapter):
    """Adapters on a base that was quantised, and so differs from the registered one.

    turned  names of the layers that store their weight as (inputs, outputs) and do so again once merged
    """

    def __init__(self, peft_model: PeftModel, turned: set[str]) -> None:
        super().__init__(peft_model)
        self._turned = turned

    def merge(self) -> PreTrainedModel:
        """Replace each quantised layer by a plain one: its de-quantised weight plus the adapter's."""
        functional, model = _bitsandbytes().functional, self.model
        for name, module in list(model.named_modules()):
            if isinstance(module, LoraLayer):
                packed = module.get_base_layer()
                weight = functional.dequantize_4bit(packed.weight.data, packed.weight.quant_state)
                merged = weight + module.get_delta_weight("default").to(weight.dtype)
                plain: torch.nn.Linear | Conv1D
                if name in self._turned:
                    plain = Conv1D(packed.out_features, packed.in_features)
                    plain.weight = torch.nn.Parameter(merged.T.contiguous())
                else:
                    plain = torch.nn.Linear(packed.in_features, packed.out_features, packed.bias is not None)
                    plain.weight = torch.nn.Parameter(merged)
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
    targets = places(model, "all")
    turned = _quantise(model)
    vars(model)["is_loaded_in_4bit"] = True  # PEFT chooses its layer classes by this flag
    try:
        config = LoraConfig(r=update.rank, lora_alpha=update.alpha, lora_dropout=0.0, target_modules=targets)
        return QLoraAdapter(adapt(model, config, seed), turned)
    finally:
        del vars(model)["is_loaded_in_4bit"]


def _quantise(model: PreTrainedModel) -> set[str]:
    """Quantise the layers that get adapters. Return the names of those that stored their weight transposed."""
    layers, linear = _bitsandbytes().nn, linear_layers(model)
    compute = torch.bfloat16 if model.device.type == "cuda" else torch.float32  # as in the rest of the forward pass
    for name, module in linear.items():
        outputs, inputs = shape_of(module)
        bias = cast("torch.nn.Parameter | None", module.bias)
        weight = cast("torch.nn.Parameter", module.weight).detach().cpu()
        packed = layers.Linear4bit(
            inputs, outputs, bias is not None, compute_dtype=compute, compress_statistics=True, quant_type="nf4"
        )
        packed.weight = layers.Params4bit(
            weight.T.contiguous() if is_turned(module) else weight,
            requires_grad=False,
            quant_type="nf4",
            compress_statistics=True,
        )
        packed.bias = bias
        model.set_submodule(name, packed.to(model.device))
    return {name for name, module in linear.items() if is_turned(module)}


def _bitsandbytes() -> Any:
    """Import bitsandbytes, which the extra `cuda` installs. Raises Infeasible without it."""
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise Infeasible(f"qlora needs the package bitsandbytes on the worker (extra `cuda`): {error}") from error
