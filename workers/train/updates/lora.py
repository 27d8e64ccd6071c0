"""The LoRA family, through PEFT: low-rank adapters on linear layers, never on the output head, without dropout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, assert_never

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch.nn import Parameter
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from luthier.errors import Infeasible
from luthier.updates import Dora, Lora, LoraPlus, Placement, RsLora
from workers.train.forward import is_encoder
from workers.train.updates.base import Stateless, implements, trainable_parameters

ALL_LINEAR: Final = "all-linear"  # PEFT's shorthand for every linear layer except the output head
EVERYWHERE: Final[dict[str, Any]] = {"target_modules": ALL_LINEAR}
_INDEX: Final = re.compile(r"\.\d+\.")  # the number of a transformer layer in a module's name


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
    adapted = adapt(model, lora_config(update, places(model, update.placement)), seed)
    return LoraPlusAdapter(adapted, update.ratio) if isinstance(update, LoraPlus) else Adapter(adapted)


def adapt(model: PreTrainedModel, config: PeftConfig, seed: int) -> PeftModel:
    """Add PEFT's adapters to `model` in place. `seed` determines their random initial values."""
    config.task_type = None if is_encoder(model) else "CAUSAL_LM"  # PEFT has no task type for masked language models
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def places(model: PreTrainedModel, placement: Placement) -> list[str] | str:
    """Return PEFT's `target_modules` for a placement: sorted module names, relative to their transformer layer.

    Linear layers inside a module of a class named `…Attention` count as attention; all others as MLP. Raises Infeasible
    if the model has none of a kind, or if its embeddings are tied: an adapter on them could not be merged.
    """
    match placement:
        case "all":
            return ALL_LINEAR
        case "embeddings":
            embeddings = model.get_input_embeddings()
            if (head := model.get_output_embeddings()) is not None and head.weight is embeddings.weight:
                raise Infeasible(
                    f"{type(model).__name__} has tied embeddings: an adapter on them would change the output head too"
                )
            name = next(name for name, module in model.named_modules() if module is embeddings)
            found = [*_linear(model, attention=True), *_linear(model, attention=False), name]
        case "attention":
            found = _linear(model, attention=True)
        case "mlp":
            found = _linear(model, attention=False)
    if not found:
        raise Infeasible(f"{type(model).__name__} has no linear layers for the placement {placement}")
    return sorted(found)


def _linear(model: PreTrainedModel, *, attention: bool) -> list[str]:
    """Return the names of the linear layers inside attention, or outside it, relative to their transformer layer."""
    head = model.get_output_embeddings()
    inside = tuple(name + "." for name, module in model.named_modules() if type(module).__name__.endswith("Attention"))
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    ]
    return sorted({_INDEX.split(name, 1)[-1] for name in linear if name.startswith(inside) == attention})


def lora_config(update: LowRank, target_modules: list[str] | str) -> LoraConfig:
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
    )
