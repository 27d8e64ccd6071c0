"""PiSSA (Meng et al. 2024): adapters start as the principal components of each weight; the residual is frozen."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from luthier.updates import Pissa
from workers.train.updates.base import implements
from workers.train.updates.lora import Adapter, adapt, redirected
from workers.train.updates.targets import linear_layers, places, reached, require_fitting


class PissaAdapter(Adapter):
    """Adapters that were split off the base weights. Keeps their initial values, to export plain LoRA."""

    def __init__(self, peft_model: PeftModel) -> None:
        super().__init__(peft_model)
        # Loading the saved adapter, or adding another with this config, must not split the weights again.
        peft_model.peft_config["default"].init_lora_weights = True
        self.at_first = {
            name: tensor.detach().clone() for name, tensor in peft_model.state_dict().items() if ".lora_" in name
        }

    def save_adapter(self, folder: Path) -> bool:
        """Save plain LoRA of twice the rank for the original base: BA - B₀A₀ = [B, -B₀][A; A₀].

        Users have the original base weights, not the frozen residual. Nothing where PEFT would load it elsewhere.
        """
        if redirected(self.peft_model):
            return False
        with tempfile.TemporaryDirectory(prefix="luthier-pissa-") as scratch:
            first = Path(scratch) / "first"
            self.peft_model.save_pretrained(first, state_dict=self.at_first)
            self.peft_model.save_pretrained(folder, path_initial_model_for_weight_conversion=str(first))
        (folder / "README.md").unlink(missing_ok=True)
        return True


@implements(Pissa, peft_config="LoraConfig", own_reference=True)
def principal(model: PreTrainedModel, update: Pissa, seed: int) -> PissaAdapter:
    """Split each weight into an adapter and a frozen residual. Raises Infeasible if the rank exceeds a weight's shape.

    The randomised SVD (Halko et al. 2011) uses `seed` and always runs on the CPU, so that a trial resumed on another
    device has the same residual.
    """
    device = model.device
    torch.nn.Module.to(model, "cpu")
    targets = places(model, update.placement)
    require_fitting(reached(linear_layers(model), targets), "pissa", update.rank)
    config = LoraConfig(
        r=update.rank,
        lora_alpha=update.rank,
        init_lora_weights="pissa_niter_16",
        lora_dropout=0.0,
        target_modules=targets,
    )
    adapted = adapt(model, config, seed)
    torch.nn.Module.to(model, device)
    return PissaAdapter(adapted)
