"""PiSSA: adapters that start as the principal part of each weight, over a frozen rest (Meng et al. 2024)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from luthier.design import Pissa
from luthier.errors import Infeasible
from workers.train.updates.lora import Adapter, adapt, places


class Principal(Adapter):
    """Adapters that were taken out of the weights below them; knows what they were at first."""

    def __init__(self, peft_model: PeftModel) -> None:
        super().__init__(peft_model)
        # Loading the saved adapter, or adding one like it, must not take anything out of the weights again.
        peft_model.peft_config["default"].init_lora_weights = True
        self.at_first = {
            name: tensor.detach().clone() for name, tensor in peft_model.state_dict().items() if ".lora_" in name
        }

    def save_adapter(self, folder: Path) -> bool:
        """As plain LoRA of twice the rank for the original base, since nobody else has the frozen rest:
        BA - B₀A₀ = [B, -B₀][A; A₀]."""
        with tempfile.TemporaryDirectory(prefix="luthier-pissa-") as scratch:
            first = Path(scratch) / "first"
            self.peft_model.save_pretrained(first, state_dict=self.at_first)
            self.peft_model.save_pretrained(folder, path_initial_model_for_weight_conversion=str(first))
        (folder / "README.md").unlink(missing_ok=True)
        return True


def principal(model: PreTrainedModel, update: Pissa, seed: int) -> Principal:
    """Split each weight. Raises Infeasible where one has fewer rows or columns than the rank.

    The singular vectors are those of Halko et al.'s randomised method, drawn from `seed` and always found on the CPU:
    a trial that is resumed on another device has the same frozen rest.
    """
    device = model.device
    torch.nn.Module.to(model, "cpu")
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and min(module.weight.shape) < update.rank:
            shape = " × ".join(map(str, module.weight.shape))
            raise Infeasible(f"pissa asks for rank {update.rank}, but {name} is {shape}")
    config = LoraConfig(
        r=update.rank,
        lora_alpha=update.rank,
        init_lora_weights="pissa_niter_16",
        lora_dropout=0.0,
        target_modules=places(model, update.placement),
    )
    adapted = adapt(model, config, seed)
    torch.nn.Module.to(model, device)
    return Principal(adapted)
