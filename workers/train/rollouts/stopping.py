"""The tokens at which generation stops: all that end an answer, as models name them in three places."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from peft import PeftModelForCausalLM
from transformers import PreTrainedTokenizerBase

from workers.train.data.conversation import ChatTemplate
from workers.train.forward import CausalModel


def stop_ids(model: CausalModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the ids of the tokens that end an answer, in ascending order; empty if the model has none.

    They are the tokenizer's end-of-sequence token, those of the model's generation config, and the tokens that end an
    assistant turn of the chat template.
    """
    plain = model.get_base_model() if isinstance(model, PeftModelForCausalLM) else model
    own: Any = getattr(getattr(plain, "generation_config", None), "eos_token_id", None)  # encoders have no config
    named = set(own) if isinstance(own, list | tuple) else {own}
    known = len(tokenizer)
    found = {int(token) for token in named if token is not None and 0 <= int(token) < known}
    return tuple(sorted(found | set(_of_tokenizer(tokenizer, str(tokenizer.chat_template)))))


@lru_cache(maxsize=16)
def _of_tokenizer(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[int, ...]:
    """`template`: part of the cache key, as a tokenizer may be given another one."""
    ends = ChatTemplate(tokenizer).ends if tokenizer.chat_template else ()
    ids = [tokenizer.eos_token_id, *(tokenizer.convert_tokens_to_ids(end) for end in ends)]
    return tuple(int(token) for token in ids if token is not None)
