"""Prompt tuning (Lester et al. 2021) and prefix tuning (Li & Liang 2021): virtual tokens before every sequence.

The model stays frozen, and the virtual tokens are an input that cannot be merged into weights. So the PEFT model itself
is trained, judged and exported. Both start from random tokens of the vocabulary: from their embeddings, or from the
keys and values that the model computes for them. Both papers found this better than random numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Never, cast

import torch
from peft import PeftModelForCausalLM, PrefixTuningConfig, PromptTuningConfig
from torch.nn import Parameter
from transformers import PreTrainedModel

from luthier.errors import Infeasible
from luthier.updates import Prefix, Prompt
from workers.train.forward import require_end_to_end
from workers.train.updates.base import Stateless, implements, trainable_parameters


class VirtualTokenAdapter(Stateless):
    """A PEFT model, which is called itself because it inserts the virtual tokens."""

    mergeable = False

    def __init__(self, peft_model: PeftModelForCausalLM, kind: str) -> None:
        self.model = peft_model
        self.kind = kind

    def trainable(self) -> dict[str, Parameter]:
        return trainable_parameters(self.model)

    def merge(self) -> Never:
        raise Infeasible(f"{self.kind} tuning cannot be merged into the weights for the next stage")

    def save_adapter(self, folder: Path) -> bool:
        self.model.save_pretrained(folder, safe_serialization=True)
        (folder / "README.md").unlink(missing_ok=True)
        return True


@implements(Prompt, peft_config="PromptTuningConfig", own_reference=True)
def prompt(model: PreTrainedModel, update: Prompt, seed: int) -> VirtualTokenAdapter:
    """Add prompt tuning. `seed` determines the tokens whose embeddings it starts from.

    Raises Infeasible if the model does not take rows end to end.
    """
    require_end_to_end(model)
    config = PromptTuningConfig(num_virtual_tokens=update.tokens, task_type="CAUSAL_LM")
    adapted = PeftModelForCausalLM(model, config)
    embeddings = cast("torch.nn.Embedding", model.get_input_embeddings()).weight.detach()
    return _started(adapted, update.kind, embeddings[_drawn(model, update.tokens, seed).to(embeddings.device)])


@implements(Prefix, peft_config="PrefixTuningConfig", own_reference=True)
def prefix(model: PreTrainedModel, update: Prefix, seed: int) -> VirtualTokenAdapter:
    """Add prefix tuning. `seed` determines the tokens whose keys and values it starts from. Raises Infeasible as
    `prompt`."""
    require_end_to_end(model)
    ids_1T = _drawn(model, update.tokens, seed)[None].to(model.device)
    with torch.no_grad():
        cache = cast("Any", model)(input_ids=ids_1T, use_cache=True).past_key_values
    # per layer its keys, then its values, each [1, heads, tokens, head_dim] → [tokens, layers · 2 · heads · head_dim]
    parts = [part[0].transpose(0, 1).flatten(1) for layer in cache.layers for part in (layer.keys, layer.values)]
    config = PrefixTuningConfig(num_virtual_tokens=update.tokens, task_type="CAUSAL_LM")
    return _started(PeftModelForCausalLM(model, config), update.kind, torch.cat(parts, dim=1))


def _started(adapted: PeftModelForCausalLM, kind: str, start: torch.Tensor) -> VirtualTokenAdapter:
    """Set the initial values. Raises Infeasible if layers of different shapes make them not fit."""
    learned: Parameter = adapted.prompt_encoder["default"].embedding.weight
    if learned.shape != start.shape:
        raise Infeasible(
            f"{kind} tuning needs layers of one shape; {type(adapted.get_base_model()).__name__} has several"
        )
    with torch.no_grad():
        learned.copy_(start)
    return VirtualTokenAdapter(adapted.eval(), kind)


def _drawn(model: PreTrainedModel, count: int, seed: int) -> torch.Tensor:
    """Return random token ids, drawn on the CPU so that they are the same on every device."""
    vocabulary = len(cast("torch.nn.Embedding", model.get_input_embeddings()).weight)
    return torch.randint(vocabulary, (count,), generator=torch.Generator().manual_seed(seed))
