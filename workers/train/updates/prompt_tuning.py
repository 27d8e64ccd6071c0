"""Updates that add virtual tokens in front of every sequence and leave the model as it is: prompt and prefix tuning.

What they learn is an input, not a change of weights, so it cannot be merged: the PEFT model itself is what is trained,
judged and exported. Both start from tokens drawn from the vocabulary (their embeddings, or the keys and values that
the model makes of them), which Lester et al. (2021) and Li & Liang (2021) found better than noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Never, cast

import torch
from peft import PeftModelForCausalLM, PrefixTuningConfig, PromptTuningConfig
from torch.nn import Parameter
from transformers import PreTrainedModel

from luthier.design import Prefix, Prompt
from luthier.errors import Infeasible
from workers.train.updates.base import Steady, moving


class InFront(Steady):
    """A PEFT model that is called itself, since it puts the virtual tokens in."""

    mergeable = False

    def __init__(self, peft_model: PeftModelForCausalLM, kind: str) -> None:
        self.model = peft_model
        self.kind = kind

    def trainable(self) -> dict[str, Parameter]:
        return moving(self.model)

    def pace(self, name: str) -> float:
        return 1.0

    def merge(self) -> Never:
        raise Infeasible(f"what {self.kind} learns cannot be folded into weights that another update could go on from")

    def save_adapter(self, folder: Path) -> bool:
        self.model.save_pretrained(folder, safe_serialization=True)
        (folder / "README.md").unlink(missing_ok=True)
        return True


def prompt(model: PreTrainedModel, update: Prompt, seed: int) -> InFront:
    """`seed` decides which tokens' embeddings it starts from."""
    config = PromptTuningConfig(num_virtual_tokens=update.tokens, task_type="CAUSAL_LM")
    adapted = PeftModelForCausalLM(model, config)
    embeddings = cast("torch.nn.Embedding", model.get_input_embeddings()).weight.detach()
    return _started(adapted, update.kind, embeddings[_drawn(model, update.tokens, seed).to(embeddings.device)])


def prefix(model: PreTrainedModel, update: Prefix, seed: int) -> InFront:
    """`seed` decides which tokens' keys and values it starts from."""
    ids_1T = _drawn(model, update.tokens, seed)[None].to(model.device)
    with torch.no_grad():
        cache = cast("Any", model)(input_ids=ids_1T, use_cache=True).past_key_values
    # per layer its keys, then its values, each [1, heads, tokens, head_dim] → [tokens, layers · 2 · heads · head_dim]
    parts = [part[0].transpose(0, 1).flatten(1) for layer in cache.layers for part in (layer.keys, layer.values)]
    config = PrefixTuningConfig(num_virtual_tokens=update.tokens, task_type="CAUSAL_LM")
    return _started(PeftModelForCausalLM(model, config), update.kind, torch.cat(parts, dim=1))


def _started(adapted: PeftModelForCausalLM, kind: str, start: torch.Tensor) -> InFront:
    learned: Parameter = adapted.prompt_encoder["default"].embedding.weight
    if learned.shape != start.shape:
        raise Infeasible(
            f"{type(adapted.get_base_model()).__name__} has layers of several shapes, which {kind} is not for"
        )
    with torch.no_grad():
        learned.copy_(start)
    return InFront(adapted.eval(), kind)


def _drawn(model: PreTrainedModel, count: int, seed: int) -> torch.Tensor:
    """Token ids, drawn on the CPU so that every device draws the same."""
    vocabulary = len(cast("torch.nn.Embedding", model.get_input_embeddings()).weight)
    return torch.randint(vocabulary, (count,), generator=torch.Generator().manual_seed(seed))
