"""AdaLoRA: low-rank adapters as singular values with their vectors, pruned while they learn (Zhang et al. 2023).

The allocator is PEFT's. What it has learnt of each number's importance, and which singular values it has left, is
state of the training: without it a resumed trial would prune others.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from peft import AdaLoraConfig, PeftModel
from transformers import PreTrainedModel

from luthier.design import AdaLora
from workers.train.updates.lora import EVERYWHERE, Adapter, adapt

WARMUP, SETTLED = 0.1, 0.3  # shares of the steps before anything is pruned, and after the last of it
PRUNINGS: Final = 100  # at most, over the whole schedule

_AVERAGES: Final = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # PEFT's names


def schedule(steps: int) -> dict[str, int]:
    """PEFT's `total_step`, `tinit`, `tfinal` and `deltaT` for a stage of so many optimiser steps, counted from 0."""
    settled = max(1, round(SETTLED * steps)) if steps > 1 else 0
    return {"total_step": steps, "tinit": int(WARMUP * steps), "tfinal": settled, "deltaT": max(1, steps // PRUNINGS)}


class Adaptive(Adapter):
    """Adapters whose ranks are decided in the first stage that trains them; later stages keep to them."""

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
        """How far the vectors are from being at right angles, as PEFT measures it: the mean of ‖PPᵀ - I‖."""
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


def adaptive(model: PreTrainedModel, update: AdaLora, seed: int) -> Adaptive:
    """`seed` decides the singular vectors that training starts from; the values start at zero."""
    config = AdaLoraConfig(
        target_r=update.rank,
        init_r=math.ceil(update.START * update.rank),
        lora_alpha=update.alpha,
        lora_dropout=0.0,
        orth_reg_weight=update.orthogonality,
        **schedule(1),  # the stage says how long it is when it begins
        **EVERYWHERE,
    )
    return Adaptive(adapt(model, config, seed))
