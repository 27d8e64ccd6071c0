"""Adapters other than LoRA, through PEFT: learned scaling vectors (VeRA, IA³) and orthogonal rotations (OFT)."""

from __future__ import annotations

from peft import IA3Config, OFTConfig, VeraConfig
from transformers import PreTrainedModel

from luthier.errors import Infeasible
from luthier.updates import Ia3, Oft, Vera
from workers.train.updates.base import implements
from workers.train.updates.lora import Adapter, adapt
from workers.train.updates.targets import is_turned, linear_layers, places, rescaled_targets, shape_of


@implements(Vera, peft_config="VeraConfig", own_reference=True)
def vera(model: PreTrainedModel, update: Vera, seed: int) -> Adapter:
    """VeRA (Kopiczko et al. 2024). `seed` determines the shared random matrices, which the saved adapter includes."""
    config = VeraConfig(
        r=update.rank, projection_prng_key=seed, save_projection=True, target_modules=places(model, "all")
    )
    return Adapter(adapt(model, config, seed))


@implements(Ia3, peft_config="IA3Config")
def ia3(model: PreTrainedModel, update: Ia3, seed: int) -> Adapter:
    """IA³ (Liu et al. 2022) on keys, values and the last layer of each MLP. Raises Infeasible as `rescaled_targets`."""
    return Adapter(adapt(model, IA3Config(**rescaled_targets(model)), seed))


@implements(Oft, peft_config="OFTConfig")
def oft(model: PreTrainedModel, update: Oft, seed: int) -> Adapter:
    """OFT (Qiu et al. 2023), exact Cayley rotations.

    Raises Infeasible if the block does not divide the inputs, or if layers are of a class that PEFT cannot rotate.
    """
    for name, module in linear_layers(model).items():
        _, inputs = shape_of(module)
        if is_turned(module):
            raise Infeasible(f"PEFT has no oft for {type(module).__name__}, the class of {name}")
        if inputs % update.block:
            raise Infeasible(f"oft needs inputs that are a multiple of {update.block}, but {name} has {inputs}")
    config = OFTConfig(oft_block_size=update.block, use_cayley_neumann=False, target_modules=places(model, "all"))
    return Adapter(adapt(model, config, seed))
