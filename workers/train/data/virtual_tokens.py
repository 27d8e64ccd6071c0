"""Virtual tokens in padding-free batches: before each sequence, where PEFT puts them before each row of a batch.

Prompt tuning inserts embeddings into the row. Prefix tuning passes keys and values, which attention puts before each
sequence's own. Neither gets an output.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModelForCausalLM
from peft.utils import PeftType

from luthier.errors import Infeasible
from workers.train.data.padding_free import UnpaddedRows


def with_virtual_tokens(model: PeftModelForCausalLM, rows: UnpaddedRows) -> dict[str, Any]:
    """Return the arguments for calling the base model. Raises Infeasible if a sequence exceeds its context."""
    config, plain = model.active_peft_config, model.get_base_model()
    count: int = config.num_virtual_tokens
    text = plain.config.get_text_config()
    limit = text.max_position_embeddings
    if max(rows.lengths) + count > limit and not getattr(text, "rope_parameters", None):
        raise Infeasible(
            f"{max(rows.lengths)} tokens and {count} virtual tokens exceed the context of {type(plain).__name__}: "
            f"{limit} tokens"
        )
    learned = model.get_prompt(1)
    if config.peft_type is PeftType.PREFIX_TUNING:
        return {
            "input_ids": rows.ids_1T,
            "position_ids": rows.positions_1T + count,
            "sequence_lengths": rows.lengths,
            "logits_to_keep": rows.predictor_N,
            "prefix": [(layer.keys, layer.values) for layer in learned.layers],
        }
    lengths = [length + count for length in rows.lengths]
    embedded_1TD = model.word_embeddings(rows.ids_1T)
    parts = [part for own in embedded_1TD.split(list(rows.lengths), 1) for part in (learned.to(own.dtype), own)]
    positions = [torch.arange(length, device=rows.ids_1T.device) for length in lengths]
    before_S = count * torch.arange(
        1, len(lengths) + 1, device=rows.ids_1T.device
    )  # virtual tokens up to and including each sequence
    sequence_T = torch.repeat_interleave(before_S, torch.tensor(rows.lengths, device=before_S.device))
    return {
        "inputs_embeds": torch.cat(parts, dim=1),
        "position_ids": torch.cat(positions)[None],
        "sequence_lengths": tuple(lengths),
        "logits_to_keep": rows.predictor_N + sequence_T[rows.predictor_N],
    }
