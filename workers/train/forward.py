"""One forward pass over unpadded rows, down to the log-probabilities that every objective is made of."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from peft import PeftModelForCausalLM
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from luthier.errors import Infeasible
from luthier.models.base_model import OFFSET_POSITIONS
from workers.train.attention import unpadded
from workers.train.data.padding_free import UnpaddedRows, lay_out
from workers.train.data.tokenize import Masked, Tokens
from workers.train.data.virtual_tokens import with_virtual_tokens

CausalModel: TypeAlias = PreTrainedModel | PeftModelForCausalLM  # the latter where virtual tokens cannot be left out

# Tokens in one forward pass. Steps with more rows accumulate gradients; the result is the same.
TOKEN_CAP = {"cpu": 2048, "cuda": 16384, "mps": 4096}


def target_logps(model: CausalModel, rows: UnpaddedRows) -> torch.Tensor:
    """Log-probability of each target token given those before it in its sequence, or all others where the model is an
    encoder: [N], float32 or finer.

    Only the N predicting positions go through the output head. Raises Infeasible where virtual tokens push a sequence
    beyond the positions that a model has learnt.
    """
    plain = model.get_base_model() if isinstance(model, PeftModelForCausalLM) else model
    with unpadded(plain), mixed_precision(rows.ids_1T.device):
        if is_encoder(plain):
            logits_1NV = _encoder_logits(plain, rows)
        else:
            inputs = with_virtual_tokens(model, rows) if isinstance(model, PeftModelForCausalLM) else _as_they_are(rows)
            logits_1NV = plain(**inputs, use_cache=False).logits
    logits_NV = logits_1NV[0].to(torch.promote_types(logits_1NV.dtype, torch.float32))
    return -torch.nn.functional.cross_entropy(logits_NV, rows.label_N, reduction="none")


def last_hidden(model: PreTrainedModel, rows: UnpaddedRows) -> torch.Tensor:
    """The hidden state of each sequence's last token, as the output head would read it: [S, D], float32 or finer."""
    with unpadded(model), mixed_precision(rows.ids_1T.device):
        hidden_1TD = model.base_model(
            input_ids=rows.ids_1T,
            position_ids=rows.positions_1T,
            sequence_lengths=rows.lengths,
            use_cache=False,
        ).last_hidden_state
    last_S = torch.tensor(rows.lengths, device=rows.ids_1T.device).cumsum(0) - 1
    last_SD: torch.Tensor = hidden_1TD[0, last_S]
    return last_SD.to(torch.promote_types(last_SD.dtype, torch.float32))


def is_encoder(model: PreTrainedModel) -> bool:
    """Whether the model reads in both directions: transformers lets all others generate."""
    return not model.can_generate()


def _encoder_logits(model: PreTrainedModel, rows: UnpaddedRows) -> torch.Tensor:
    """Encoders have no `logits_to_keep`: a hook leaves the predicting positions alone in front of the head."""

    def keep(_: torch.nn.Module, __: object, output: ModelOutput) -> ModelOutput:
        output["last_hidden_state"] = output["last_hidden_state"][:, rows.predictor_N]
        return output

    config = model.config
    first = config.pad_token_id + 1 if config.model_type in OFFSET_POSITIONS else 0
    hook = model.base_model.register_forward_hook(keep)
    try:
        logits_1NV: torch.Tensor = model(
            input_ids=rows.ids_1T, position_ids=rows.positions_1T + first, sequence_lengths=rows.lengths
        ).logits
    finally:
        hook.remove()
    return logits_1NV


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
    probe, plain_logps = (_masked_probe, _plain_masked_logps) if is_encoder(model) else (_probe, _plain_logps)
    probes = [probe(start=8, length=8), probe(start=24, length=12)]
    try:
        together_N = target_logps(model, lay_out(probes, model.device))
        alone_N = torch.cat([plain_logps(model, torch.tensor(probe.ids, device=model.device)) for probe in probes])
    except (TypeError, ValueError, RuntimeError) as error:
        raise Infeasible(f"{family} does not take unpadded rows: {error}") from error
    if not torch.allclose(together_N, alone_N, rtol=0.0, atol=1e-2):  # rounding is below 1e-3, a leak above 1e-1
        raise Infeasible(f"{family} lets sequences that lie end to end see each other: it cannot be trained unpadded")


def _probe(*, start: int, length: int) -> Tokens:
    return Tokens(ids=tuple(range(start, start + length)), target=(False, *[True] * (length - 1)), target_bytes=0)


def _masked_probe(*, start: int, length: int) -> Masked:
    ids = tuple(range(start, start + length))
    return Masked(ids=ids, labels=ids, target=(True,) * length, target_bytes=0, mask=0)


def _plain_masked_logps(model: PreTrainedModel, ids_T: torch.Tensor) -> torch.Tensor:
    logits_TV = model(input_ids=ids_T[None]).logits[0].float()
    return -torch.nn.functional.cross_entropy(logits_TV, ids_T, reduction="none")


def _plain_logps(model: PreTrainedModel, ids_T: torch.Tensor) -> torch.Tensor:
    logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0, :-1].float()
    return -torch.nn.functional.cross_entropy(logits_TV, ids_T[1:], reduction="none")


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 matrix products on CUDA; a CPU computes in float32 (bfloat16 is several times slower there)."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
