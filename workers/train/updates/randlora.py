"""RandLoRA, through PEFT: random low-rank matrices that all layers share, in learned combinations of full rank."""

from __future__ import annotations

from peft import RandLoraConfig
from transformers import PreTrainedModel

from luthier.updates import RandLora
from workers.train.updates.base import implements
from workers.train.updates.lora import Adapter, adapt
from workers.train.updates.targets import places


@implements(RandLora, peft_config="RandLoraConfig", own_reference=True)
def randlora(model: PreTrainedModel, update: RandLora, seed: int) -> Adapter:
    """Add RandLoRA adapters. `seed` determines the random matrices, which are saved with the adapter."""
    config = RandLoraConfig(
        r=update.rank,
        randlora_alpha=round(update.SCALE * update.rank),
        projection_prng_key=seed,
        save_projection=True,
        target_modules=places(model, "all"),
    )
    return Adapter(adapt(model, config, seed))
