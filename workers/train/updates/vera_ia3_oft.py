"""Adapters other than LoRA, through PEFT: learned scaling vectors (VeRA, IA³) and orthogonal rotations (OFT)."""

from __future__ import annotations

import torch
from peft import IA3Config, OFTConfig, VeraConfig
from transformers import PreTrainedModel

from luthier.errors import Infeasible
from luthier.updates import Ia3, Oft, Vera
from workers.train.updates.base import implements
from workers.train.updates.lora import EVERYWHERE, Adapter, adapt


@implements(Vera, peft_config="VeraConfig", own_reference=True)
def vera(model: PreTrainedModel, update: Vera, seed: int) -> Adapter:
    """VeRA (Kopiczko et al. 2024). `seed` determines the shared random matrices, which the saved adapter includes."""
    config = VeraConfig(r=update.rank, projection_prng_key=seed, save_projection=True, **EVERYWHERE)
    return Adapter(adapt(model, config, seed))


@implements(Ia3, peft_config="IA3Config")
def ia3(model: PreTrainedModel, update: Ia3, seed: int) -> Adapter:
    """IA³ (Liu et al. 2022), on PEFT's default layers for the family. Raises Infeasible if PEFT knows none."""
    try:
        return Adapter(adapt(model, IA3Config(), seed))
    except ValueError as error:
        raise Infeasible(f"PEFT has no ia3 layers for {type(model).__name__}: {error}") from error


@implements(Oft, peft_config="OFTConfig")
def oft(model: PreTrainedModel, update: Oft, seed: int) -> Adapter:
    """OFT (Qiu et al. 2023), exact Cayley rotations. Raises Infeasible if the block does not divide the inputs."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head and module.in_features % update.block:
            raise Infeasible(
                f"oft needs inputs that are a multiple of {update.block}, but {name} has {module.in_features}"
            )
    config = OFTConfig(oft_block_size=update.block, use_cayley_neumann=False, **EVERYWHERE)
    return Adapter(adapt(model, config, seed))
