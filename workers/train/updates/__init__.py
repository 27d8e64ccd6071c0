"""The weight updates: how to apply each member of `luthier.design.Update` to a model."""

from __future__ import annotations

from transformers import PreTrainedModel

from luthier.design import (
    AdaLora,
    BitFit,
    Dora,
    Full,
    Ia3,
    LayerNorm,
    Lora,
    LoraPlus,
    Oft,
    Pissa,
    Prefix,
    Prompt,
    QLora,
    RsLora,
    TopLayers,
    Update,
    Vera,
)
from workers.train.updates.adalora import adaptive
from workers.train.updates.base import Applied
from workers.train.updates.lora import low_rank
from workers.train.updates.partial import bitfit, full, layernorm, top_layers
from workers.train.updates.pissa import principal
from workers.train.updates.prompt_tuning import prefix, prompt
from workers.train.updates.qlora import qlora
from workers.train.updates.vera_ia3_oft import ia3, oft, vera

__all__ = ["Applied", "apply"]


def apply(model: PreTrainedModel, update: Update, seed: int) -> Applied:
    """Apply an update to a model in place. `seed` determines its random initial values.

    Raises Infeasible if the model does not support the update.
    """
    match update:
        case Full():
            return full(model, update)
        case TopLayers():
            return top_layers(model, update)
        case Lora() | RsLora() | Dora() | LoraPlus():
            return low_rank(model, update, seed)
        case LayerNorm():
            return layernorm(model, update)
        case BitFit():
            return bitfit(model, update)
        case Pissa():
            return principal(model, update, seed)
        case Vera():
            return vera(model, update, seed)
        case Ia3():
            return ia3(model, update, seed)
        case Oft():
            return oft(model, update, seed)
        case AdaLora():
            return adaptive(model, update, seed)
        case Prompt():
            return prompt(model, update, seed)
        case Prefix():
            return prefix(model, update, seed)
        case QLora():
            return qlora(model, update, seed)
