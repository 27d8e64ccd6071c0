"""The LoRA family, through PEFT: low-rank adapters on linear layers and on fused experts, without dropout."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, assert_never

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import transformers_weight_conversion
from torch.nn import Parameter
from transformers import PreTrainedModel

from luthier.updates import Dora, Lora, LoraPlus, RsLora
from workers.train.forward import is_encoder
from workers.train.updates.base import Stateless, implements, trainable_parameters
from workers.train.updates.targets import fused_experts, places


class Adapter(Stateless):
    """A PEFT model with injected adapters. The model to call is its base, which PEFT modifies in place."""

    def __init__(self, peft_model: PeftModel) -> None:
        self.peft_model = peft_model

    @property
    def model(self) -> PreTrainedModel:
        model: PreTrainedModel = self.peft_model.get_base_model()
        return model

    def trainable(self) -> dict[str, Parameter]:
        return trainable_parameters(self.model)

    def merge(self) -> PreTrainedModel:
        merged: PreTrainedModel = self.peft_model.merge_and_unload(safe_merge=True)
        return merged

    def save_adapter(self, folder: Path) -> bool:
        """Save nothing where PEFT would load the adapter onto other layers than these."""
        if redirected(self.peft_model):
            return False
        self.peft_model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card; the export writes a full one
        return True


class LoraPlusAdapter(Adapter):
    """LoRA+ (Hayou et al. 2024): the B matrices learn `ratio` times faster than the A matrices."""

    def __init__(self, peft_model: PeftModel, ratio: float) -> None:
        super().__init__(peft_model)
        self.ratio = ratio

    def lr_scale(self, name: str) -> float:
        return self.ratio if ".lora_B." in name else 1.0


LowRank = Lora | RsLora | Dora | LoraPlus


@implements(Lora, RsLora, Dora, LoraPlus, peft_config="LoraConfig")
def low_rank(model: PreTrainedModel, update: LowRank, seed: int) -> Adapter:
    """Add LoRA adapters to `model` in place. `seed` determines the random initial A matrices."""
    adapted = adapt(model, lora_config(update, **low_rank_targets(model, update)), seed)
    return LoraPlusAdapter(adapted, update.ratio) if isinstance(update, LoraPlus) else Adapter(adapted)


def adapt(model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
    """Add PEFT's adapters to `model` in place. `seed` determines their random initial values."""
    config.task_type = None if is_encoder(model) else "CAUSAL_LM"  # PEFT has no task type for masked language models
    with torch.random.fork_rng(devices=[]), _targets_as_given():
        torch.manual_seed(seed)
        return get_peft_model(model, config)


@contextmanager
def _targets_as_given() -> Iterator[None]:
    """Within this context PEFT takes the names of a configuration as they are.

    Otherwise it takes `gate_proj`, `up_proj` and `down_proj` of a mixture of experts as names of an older version's
    experts, and leaves out the dense and shared MLPs that have these names today.
    """
    own = transformers_weight_conversion.convert_peft_config_for_transformers
    transformers_weight_conversion.convert_peft_config_for_transformers = lambda *_, **__: None
    try:
        yield
    finally:
        transformers_weight_conversion.convert_peft_config_for_transformers = own


def redirected(peft_model: PeftModel) -> bool:
    """Return whether PEFT would take the names of the configuration as those of other layers."""
    config = peft_model.peft_config["default"]
    taken = copy.deepcopy(config)
    try:
        transformers_weight_conversion.convert_peft_config_for_transformers(taken, peft_model.get_base_model(), None)
    except ValueError:  # it takes them for some of an older version's layers that are one layer now
        return True
    return bool(taken.target_modules != config.target_modules)


def low_rank_targets(model: PreTrainedModel, update: LowRank) -> dict[str, Any]:
    """Return PEFT's `target_modules` of an update, and `target_parameters` where it reaches fused experts.

    DoRA does not: PEFT has it for linear layers only. Raises Infeasible as `places`.
    """
    experts = [] if isinstance(update, Dora) or update.placement == "attention" else fused_experts(model)
    return {"target_modules": places(model, update.placement)} | ({"target_parameters": experts} if experts else {})


def lora_config(
    update: LowRank, target_modules: list[str] | str, target_parameters: list[str] | None = None
) -> LoraConfig:
    """Return PEFT's configuration of the update."""
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
        target_modules=target_modules,
        target_parameters=target_parameters,
    )
