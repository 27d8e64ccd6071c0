"""The LoRA family, through PEFT: low-rank adapters on every linear layer but the output head, without dropout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, assert_never

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch.nn import Parameter
from transformers import PreTrainedModel

from luthier.design import Dora, Lora, LoraPlus, RsLora
from workers.train.forward import is_encoder
from workers.train.updates.applied import moving

# Every linear layer of a language model but its output head.
EVERYWHERE: Final[dict[str, Any]] = {"target_modules": "all-linear"}


class Adapter:
    """A PEFT model; its base is the model to call, since PEFT puts adapters in place."""

    def __init__(self, peft_model: PeftModel) -> None:
        self.peft_model = peft_model

    @property
    def model(self) -> PreTrainedModel:
        model: PreTrainedModel = self.peft_model.get_base_model()
        return model

    def trainable(self) -> dict[str, Parameter]:
        return moving(self.model)

    def pace(self, name: str) -> float:
        return 1.0

    def merge(self) -> PreTrainedModel:
        merged: PreTrainedModel = self.peft_model.merge_and_unload(safe_merge=True)
        return merged

    def save_adapter(self, folder: Path) -> bool:
        self.peft_model.save_pretrained(folder, safe_serialization=True)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card; ours is written by the export
        return True


class TwoPaced(Adapter):
    """Adapters whose B matrices learn faster than all else of them."""

    def __init__(self, peft_model: PeftModel, ratio: float) -> None:
        super().__init__(peft_model)
        self.ratio = ratio

    def pace(self, name: str) -> float:
        return self.ratio if ".lora_B." in name else 1.0


LowRank = Lora | RsLora | Dora | LoraPlus


def low_rank(model: PreTrainedModel, update: LowRank, seed: int) -> Adapter:
    """Put adapters on `model`; `seed` decides their random half."""
    adapted = adapt(model, lora_config(update), seed)
    return TwoPaced(adapted, update.ratio) if isinstance(update, LoraPlus) else Adapter(adapted)


def adapt(model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
    """Put PEFT's adapters on `model`, with `seed` deciding what they draw at random."""
    config.task_type = None if is_encoder(model) else "CAUSAL_LM"  # PEFT has no word for masked language models
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def lora_config(update: LowRank) -> LoraConfig:
    """PEFT's configuration of the update."""
    match update:
        case Lora() | LoraPlus():
            rslora, dora = False, False
        case RsLora():
            rslora, dora = True, False
        case Dora():
            rslora, dora = False, True
        case _:
            assert_never(update)
    return LoraConfig(
        r=update.rank,
        lora_alpha=update.alpha,
        use_rslora=rslora,
        use_dora=dora,
        lora_dropout=0.0,
        bias="none",
        **EVERYWHERE,
    )
