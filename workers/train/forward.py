"""The forward pass over padding-free batches: target log-probabilities, the input of almost every loss."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from peft import PeftModelForCausalLM
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from luthier.errors import Infeasible
from luthier.models.base_model import OFFSET_POSITIONS
from workers.train.attention import unpadded
from workers.train.data.padding_free import UnpaddedRows, lay_out
from workers.train.data.tokenize import Masked, Tokens
from workers.train.data.virtual_tokens import with_virtual_tokens

CausalModel: TypeAlias = PreTrainedModel | PeftModelForCausalLM  # PEFT's for virtual tokens

# Most tokens in one forward pass, by device. Larger batches use gradient accumulation, with the same result.
TOKEN_CAP = {"cpu": 2048, "cuda": 16384, "mps": 4096}


def target_logps(model: CausalModel, rows: UnpaddedRows) -> torch.Tensor:
    """Return the log-probability of each target token: [N], in float32 or higher precision. Raises as `target_logits`.

    A decoder conditions on the tokens before it in its sequence, an encoder on all others.
    """
    return -cross_entropy(target_logits(model, rows), rows.label_N, reduction="none")


def target_logits(model: CausalModel, rows: UnpaddedRows) -> torch.Tensor:
    """Return the logits that predict each target token: [N, V], in float32 or higher precision.

    Only the N predicting positions go through the output head. Raises Infeasible if virtual tokens make a sequence
    exceed the context.
    """
    plain = model.get_base_model() if isinstance(model, PeftModelForCausalLM) else model
    with unpadded(plain), mixed_precision(rows.ids_1T.device):
        if is_encoder(plain):
            logits_1NV = _encoder_logits(plain, rows)
        else:
            inputs = with_virtual_tokens(model, rows) if isinstance(model, PeftModelForCausalLM) else _inputs(rows)
            logits_1NV = plain(**inputs, use_cache=False).logits
    logits_NV: torch.Tensor = logits_1NV[0].to(torch.promote_types(logits_1NV.dtype, torch.float32))
    return logits_NV


def last_hidden(model: PreTrainedModel, rows: UnpaddedRows) -> torch.Tensor:
    """Return the final hidden state of each sequence's last token: [S, D], in float32 or higher precision."""
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
    """Return whether the model is an encoder. transformers can generate with every other kind."""
    return not model.can_generate()


def _encoder_logits(model: PreTrainedModel, rows: UnpaddedRows) -> torch.Tensor:
    """Return the logits of the predicting positions: [1, N, V]. Encoders lack `logits_to_keep`: a hook selects them."""

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


def _inputs(rows: UnpaddedRows) -> dict[str, Any]:
    return {
        "input_ids": rows.ids_1T,
        "position_ids": rows.positions_1T,
        "sequence_lengths": rows.lengths,
        "logits_to_keep": rows.predictor_N,
    }


@torch.no_grad()
def require_unpadded(model: PreTrainedModel) -> None:
    """Raise Infeasible unless the model supports padding-free batches.

    Two short sequences in one row must score as each does alone. State-space layers, ALiBi, and attention that bypasses
    transformers' interface would silently leak from one sequence into the next. Run once per loaded model.
    """
    family, encoder = type(model).__name__, is_encoder(model)
    probes: list[Tokens] = []
    for ids in (tuple(range(8, 16)), tuple(range(24, 36))):
        if encoder:
            probes.append(Masked(ids=ids, labels=ids, target=(True,) * len(ids), target_bytes=0, mask=0))
        else:
            probes.append(Tokens(ids=ids, target=(False, *[True] * (len(ids) - 1)), target_bytes=0))
    try:
        together_N = target_logps(model, lay_out(probes, model.device))
        alone_N = torch.cat([_plain_logps(model, probe, encoder=encoder) for probe in probes])
    except (TypeError, ValueError, RuntimeError) as error:
        raise Infeasible(f"{family} does not support padding-free batches: {error}") from error
    if not torch.allclose(together_N, alone_N, rtol=0.0, atol=1e-2):  # rounding is below 1e-3, a leak above 1e-1
        raise Infeasible(f"{family} does not support padding-free batches: sequences in one row affect each other")


def _plain_logps(model: PreTrainedModel, probe: Tokens, *, encoder: bool) -> torch.Tensor:
    """Return the probe's target log-probabilities from an ordinary forward pass over it alone."""
    ids_T = torch.tensor(probe.ids, device=model.device)
    if encoder:
        return -cross_entropy(model(input_ids=ids_T[None]).logits[0].float(), ids_T, reduction="none")
    logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0, :-1].float()
    return -cross_entropy(logits_TV, ids_T[1:], reduction="none")


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bfloat16 on CUDA. A CPU stays with float32: bfloat16 is several times slower there."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
