"""One forward pass over unpadded rows, down to the log-probabilities that every objective is made of."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from peft import PeftModelForCausalLM
from transformers import PreTrainedModel

from luthier.errors import Infeasible
from workers.train.attention import unpadded
from workers.train.data.rendering import Tokens
from workers.train.data.unpadded import UnpaddedRows, lay_out
from workers.train.data.virtual import with_virtual_tokens
from workers.train.updates.applied import CausalModel

# Tokens in one forward pass. Steps with more rows accumulate gradients; the result is the same.
TOKEN_CAP = {"cpu": 2048, "cuda": 16384, "mps": 4096}


def target_logps(model: CausalModel, rows: UnpaddedRows) -> torch.Tensor:
    """Log-probability of each target token given those before it in its sequence: [N], float32 or finer.

    Only the N predicting positions go through the output head. Raises Infeasible where virtual tokens push a sequence
    beyond the positions that a model has learnt.
    """
    plain = model.get_base_model() if isinstance(model, PeftModelForCausalLM) else model
    with unpadded(plain), mixed_precision(rows.ids_1T.device):
        inputs = with_virtual_tokens(model, rows) if isinstance(model, PeftModelForCausalLM) else _as_they_are(rows)
        logits_1NV = plain(**inputs, use_cache=False).logits
    logits_NV = logits_1NV[0].to(torch.promote_types(logits_1NV.dtype, torch.float32))
    return -torch.nn.functional.cross_entropy(logits_NV, rows.label_N, reduction="none")


def _as_they_are(rows: UnpaddedRows) -> dict[str, Any]:
    return {
        "input_ids": rows.ids_1T,
        "position_ids": rows.positions_1T,
        "sequence_lengths": rows.lengths,
        "logits_to_keep": rows.predictor_N,
    }


@torch.no_grad()
def require_unpadded(model: PreTrainedModel) -> None:
    """Raise Infeasible unless two short sequences laid end to end score as each does alone.

    State-space layers, ALiBi and attention written past transformers' interface would leak from one sequence into the
    next without a word, so the property itself is tried, once for each model that is loaded.
    """
    family = type(model).__name__
    probes = [_probe(start=8, length=8), _probe(start=24, length=12)]
    try:
        together_N = target_logps(model, lay_out(probes, model.device))
        alone_N = torch.cat([_plain_logps(model, torch.tensor(probe.ids, device=model.device)) for probe in probes])
    except (TypeError, ValueError, RuntimeError) as error:
        raise Infeasible(f"{family} does not take unpadded rows: {error}") from error
    if not torch.allclose(together_N, alone_N, rtol=0.0, atol=1e-2):  # rounding is below 1e-3, a leak above 1e-1
        raise Infeasible(f"{family} lets sequences that lie end to end see each other: it cannot be trained unpadded")


def _probe(*, start: int, length: int) -> Tokens:
    return Tokens(ids=tuple(range(start, start + length)), target=(False, *[True] * (length - 1)), target_bytes=0)


def _plain_logps(model: PreTrainedModel, ids_T: torch.Tensor) -> torch.Tensor:
    logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0, :-1].float()
    return -torch.nn.functional.cross_entropy(logits_TV, ids_T[1:], reduction="none")


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 matrix products on CUDA; a CPU computes in float32 (bfloat16 is several times slower there)."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
