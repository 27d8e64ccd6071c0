"""AdaLoRA (Zhang et al. 2023): low-rank adapters in SVD form, whose least important singular values are pruned.

PEFT's rank allocator decides. Its importance averages and the ranks it has left are part of a checkpoint: without them
a resumed trial would prune other singular values.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from peft import AdaLoraConfig, PeftModel
from transformers import PreTrainedModel

from luthier.updates import AdaLora
from workers.train.updates.base import implements
from workers.train.updates.lora import Adapter, adapt
from workers.train.updates.targets import places

WARMUP, SETTLED = 0.1, 0.3  # shares of the steps before the first pruning, and after the last
PRUNINGS: Final = 100  # most prunings in a stage

_AVERAGES: Final = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # PEFT's names of the importance averages


def schedule(steps: int) -> dict[str, int]:
    """Return PEFT's `total_step`, `tinit`, `tfinal` and `deltaT` for a stage of `steps` optimiser steps."""
    settled = max(1, round(SETTLED * steps)) if steps > 1 else 0
    return {"total_step": steps, "tinit": int(WARMUP * steps), "tfinal": settled, "deltaT": max(1, steps // PRUNINGS)}


class AdaLoraAdapter(Adapter):
    """The first stage that trains the adapters decides their ranks; later stages with the same update keep them."""

    def __init__(self, peft_model: PeftModel) -> None:
        super().__init__(peft_model)
        self.config: AdaLoraConfig = peft_model.peft_config["default"]
        self._stages = 0

    @property
    def _allocator(self) -> Any:
        return self.peft_model.base_model.rankallocator

    def begin(self, steps: int) -> None:
        self._stages += 1
        if self._stages == 1:
            for name, value in schedule(steps).items():
                setattr(self.config, name, value)

    def penalty(self) -> torch.Tensor:
        """Return the orthogonality penalty on the singular vectors, as PEFT computes it: the mean of ‖PPᵀ - I‖."""
        total, count = torch.zeros((), device=self.model.device), 0
        for name, p in self.model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                gram = p @ p.T if ".lora_A." in name else p.T @ p
                total, count = total + torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=p.device)), count + 1
        weight: float = self.config.orth_reg_weight
        return weight * total / count

    def after_step(self, step: int) -> None:
        if self._stages == 1:
            self.peft_model.base_model.update_and_allocate(step)
        elif self.config.rank_pattern is not None:
            self._allocator.mask_using_rank_pattern(self.model, self.config.rank_pattern)

    def state(self) -> dict[str, torch.Tensor]:
        averages = {
            f"{average}.{name}": tensor
            for average in _AVERAGES
            for name, tensor in getattr(self._allocator, average).items()
        }
        left = {f"left.{name}": torch.tensor(mask) for name, mask in (self.config.rank_pattern or {}).items()}
        return {"stages": torch.tensor(self._stages), **averages, **left}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        self._stages = int(tensors["stages"])
        for average in _AVERAGES:
            found = {n.removeprefix(f"{average}."): t for n, t in tensors.items() if n.startswith(f"{average}.")}
            setattr(self._allocator, average, {name: tensor.to(self.model.device) for name, tensor in found.items()})
        left = {n.removeprefix("left."): t.tolist() for n, t in tensors.items() if n.startswith("left.")}
        self.config.rank_pattern = left or None


@implements(AdaLora, peft_config="AdaLoraConfig", own_reference=True)
def adaptive(model: PreTrainedModel, update: AdaLora, seed: int) -> AdaLoraAdapter:
    """Add AdaLoRA adapters. `seed` determines the initial singular vectors; the singular values start at zero."""
    config = AdaLoraConfig(
        target_r=update.rank,
        init_r=math.ceil(update.START * update.rank),
        lora_alpha=update.alpha,
        lora_dropout=0.0,
        orth_reg_weight=update.orthogonality,
        **schedule(1),  # `begin` sets the real one, once the number of steps is known
        target_modules=places(model, "all"),
    )
    return AdaLoraAdapter(adapt(model, config, seed))
