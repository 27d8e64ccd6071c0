"""Adapters that are not sums of matrices: learned vectors (VeRA, IA³) and rotations (OFT), through PEFT."""

from __future__ import annotations

import torch
from peft import IA3Config, OFTConfig, VeraConfig
from transformers import PreTrainedModel

from luthier.design import Ia3, Oft, Vera
from luthier.errors import Infeasible
from workers.train.updates.lora import EVERYWHERE, Adapter, adapt


def vera(model: PreTrainedModel, update: Vera, seed: int) -> Adapter:
    """`seed` decides the shared random matrices, which travel with the saved adapter."""
    config = VeraConfig(r=update.rank, projection_prng_key=seed, save_projection=True, **EVERYWHERE)
    return Adapter(adapt(model, config, seed))


def ia3(model: PreTrainedModel, update: Ia3, seed: int) -> Adapter:
    """On the layers that PEFT names for the family; nothing is drawn. Raises Infeasible where it names none."""
    try:
        return Adapter(adapt(model, IA3Config(), seed))
    except ValueError as error:
        raise Infeasible(f"{type(model).__name__} models cannot take ia3: {error}") from error


def oft(model: PreTrainedModel, update: Oft, seed: int) -> Adapter:
    """Exact Cayley rotations; nothing is drawn. Raises Infeasible where a layer's inputs do not fill whole blocks."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head and module.in_features % update.block:
            raise Infeasible(f"oft asks for blocks of {update.block}, but {name} has {module.in_features} inputs")
    config = OFTConfig(oft_block_size=update.block, use_cayley_neumann=False, **EVERYWHERE)
    return Adapter(adapt(model, config, seed))
