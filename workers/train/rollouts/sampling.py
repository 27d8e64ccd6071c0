"""Generate answers to prompts, as token ids: greedily, or sampled at temperature 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from peft import PeftModelForCausalLM
from transformers import GenerationConfig, PreTrainedTokenizerBase

from luthier.trial import generation_batch
from workers.train.forward import CausalModel, layout, mixed_precision
from workers.train.rollouts.stopping import stop_ids

MIN_TEMPERATURE: Final = 0.01  # below it decoding is greedy: the result is the same, and the division may overflow
Ids = tuple[int, ...]


@torch.no_grad()
def sample(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    seed: int | None,
    batch: int | None = None,
) -> list[Ids]:
    """Return one answer per prompt, up to and including the end token if the model generated it.

    With a `seed` tokens are sampled at temperature 1 without top-k or top-p, so that their log-probabilities are the
    policy's. Without one decoding is greedy. Batches group prompts of similar length, deterministically; `batch` None
    chooses their size by the longest prompt.

    With virtual tokens each prompt is answered alone, which is several times slower: PEFT would put them before the
    padding, at a distance from the prompt that training never had. So is each prompt of a model that padding on the
    left would change.
    """
    longest = max(map(len, prompts), default=0) + max_new_tokens
    batch = generation_batch(longest) if batch is None else batch
    batch = 1 if isinstance(model, PeftModelForCausalLM) or not layout(model).batches(longest) else batch
    ends = stop_ids(model, tokenizer)
    config = generation_config(tokenizer, ends, max_new_tokens, temperature=0.0 if seed is None else 1.0)
    pad = config.pad_token_id
    generator: Any = model  # transformers' types hide `generate` of an auto model
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: list[Ids] = [()] * len(prompts)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), without_own_settings(model), mixed_precision(model.device):
        if seed is not None:
            torch.manual_seed(seed)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            longest = max(len(prompts[i]) for i in chosen)
            ids_BT = torch.tensor([[pad] * (longest - len(prompts[i])) + list(prompts[i]) for i in chosen])
            mask_BT = torch.tensor([[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in chosen])
            output_BT = generator.generate(
                input_ids=ids_BT.to(model.device), attention_mask=mask_BT.to(model.device), generation_config=config
            )
            for i, new in zip(chosen, output_BT[:, longest:].tolist(), strict=True):
                length = next((t for t, token in enumerate(new, start=1) if token in ends), len(new))
                answers[i] = tuple(new[:length])
    return answers


def generate(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[str]:
    """Return greedy answers as text, one per prompt."""
    answers = sample(model, tokenizer, prompts, max_new_tokens=max_new_tokens, seed=None)
    return [decode(tokenizer, ids) for ids in answers]


def generation_config(
    tokenizer: PreTrainedTokenizerBase,
    ends: Sequence[int],
    max_new_tokens: int,
    *,
    temperature: float,
    top_p: float = 1.0,
) -> GenerationConfig:
    """Return transformers' settings: greedy at temperature 0, else sampling without top-k; stops at any of `ends`."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=pad, eos_token_id=list(ends) or None
    )
    if temperature >= MIN_TEMPERATURE and top_p > 0:
        config.update(do_sample=True, temperature=temperature, top_k=0, top_p=top_p)
    return config


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return an answer as text for the grader: without special tokens and surrounding white space."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


@contextmanager
def without_own_settings(model: CausalModel) -> Iterator[None]:
    """Within this context the model's own generation settings (such as a repetition penalty) do not apply."""
    plain = model.get_base_model() if isinstance(model, PeftModelForCausalLM) else model
    own, plain.generation_config = plain.generation_config, GenerationConfig()
    try:
        yield
    finally:
        plain.generation_config = own
