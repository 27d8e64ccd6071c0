"""The judge: scores a model on held-out rows, the same way for every trial of a job, whatever trained it.

Perplexity is exp of the mean negative log-likelihood over target tokens; bits per byte is the same likelihood over the
bytes of the targets' own text, which makes tokenizers comparable. The reward is the mean grade of greedy generations
where the task has a grader, and for preference data the share of held-out pairs whose chosen answer the model finds
likelier per token (ties count half).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModelForCausalLM
from transformers import GenerationConfig, PreTrainedTokenizerBase

from luthier.errors import TrialFailed
from luthier.graders import grade, sample_of
from luthier.task import DataKind, Grader, JudgeSpec
from luthier.trial import Metrics
from workers.train.algorithms.objective import per_token, sequence_logps
from workers.train.data.rendering import Message, Renderer, Row, Tokens, as_messages
from workers.train.data.unpadded import UnpaddedRows, lay_out, within
from workers.train.forward import TOKEN_CAP, mixed_precision, target_logps
from workers.train.updates.applied import CausalModel

GENERATION_BATCH = 8


def renderer(tokenizer: PreTrainedTokenizerBase, spec: JudgeSpec, context: int) -> Renderer:
    """The job's way to turn rows into tokens, for a model whose longest sequence is `context` tokens."""
    return Renderer(tokenizer, window=min(spec.window, context), max_tokens=min(spec.max_tokens, context))


@torch.no_grad()
def judge(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, spec: JudgeSpec, rows: Sequence[Row], context: int
) -> Metrics:
    """Score `model` on held-out rows. Raises TrialFailed where nothing can be scored or a score is not a number."""
    model.eval()
    render = renderer(tokenizer, spec, context)
    scored = rows[: spec.max_rows]
    nll, tokens, content = likelihood(model, render, spec.kind, scored)
    perplexity = math.exp(min(nll / tokens, 700.0))  # exp overflows just above 709
    reward, reward_name = _reward(model, render, spec, scored)
    return Metrics(
        perplexity=perplexity,
        bits_per_byte=nll / math.log(2) / content,
        reward=reward,
        reward_name=reward_name,
        tokens=tokens,
        rows=len(scored),
    )


@torch.no_grad()
def likelihood(model: CausalModel, render: Renderer, kind: DataKind, rows: Sequence[Row]) -> tuple[float, int, int]:
    """Negative log-likelihood of the rows' answers in nats, their target tokens, and the bytes of their text."""
    sequences = [(tokens,) for row in rows for tokens in render.answers(row, kind)]
    if not sequences:
        raise TrialFailed("no held-out row has a target within the length limit")
    total = sum(float(target_logps(model, laid).sum(dtype=torch.float64)) for laid in _laid(model, sequences))
    if not math.isfinite(total):
        raise TrialFailed("the model's held-out likelihood is not a number")
    flat = [tokens for (tokens,) in sequences]
    return -total, sum(t.targets for t in flat), max(1, sum(t.target_bytes for t in flat))


def _laid(model: CausalModel, examples: Sequence[tuple[Tokens, ...]]) -> Iterator[UnpaddedRows]:
    for group in within(examples, TOKEN_CAP[model.device.type]):
        yield lay_out([tokens for example in group for tokens in example], model.device)


def _reward(
    model: CausalModel, render: Renderer, spec: JudgeSpec, rows: Sequence[Row]
) -> tuple[float | None, str | None]:
    match spec.kind:
        case DataKind.PREFERENCE:
            return _preference_accuracy(model, render, rows), "preference_accuracy"
        case DataKind.TEXT:
            return None, None
        case DataKind.PAIRS | DataKind.CHAT:
            if spec.grader is None:
                return None, None
            return _graded(model, render, spec, spec.grader, rows[: spec.max_generations]), spec.grader.name


def _preference_accuracy(model: CausalModel, render: Renderer, rows: Sequence[Row]) -> float:
    pairs = [(render.pair(r["prompt"], r["chosen"]), render.pair(r["prompt"], r["rejected"])) for r in rows]
    wins = 0.0
    for laid in _laid(model, pairs):
        mean_P2 = per_token(sequence_logps(target_logps(model, laid), laid), laid).view(-1, 2)
        wins += float((mean_P2[:, 0] > mean_P2[:, 1]).sum()) + 0.5 * float((mean_P2[:, 0] == mean_P2[:, 1]).sum())
    return wins / len(pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the model is asked, the tools it may see, and the reference answer."""

    prompt: str | Sequence[Message]
    tools: Sequence[Any] | None
    reference: str


def question(row: Row, kind: DataKind) -> Question:
    """The question that a row asks; of a chat it is everything before the last assistant turn."""
    if kind is DataKind.CHAT:
        last = max(i for i, message in enumerate(row["messages"]) if message["role"] == "assistant")
        reference = row["messages"][last].get("content") or ""
        return Question(prompt=row["messages"][:last], tools=row.get("tools"), reference=reference)
    reference = as_messages(row["completion"], "assistant")[-1].get("content") or ""
    return Question(prompt=row["prompt"], tools=None, reference=reference)


def _graded(model: CausalModel, render: Renderer, spec: JudgeSpec, grader: Grader, rows: Sequence[Row]) -> float:
    asked = [question(row, spec.kind) for row in rows]
    prompts = [render.prompt(q.prompt, q.tools)[-render.max_tokens :] for q in asked]
    answers = generate(model, render.tokenizer, prompts, spec.max_new_tokens)
    grades = [
        grade(grader, item={"reference": q.reference, **row}, sample=sample_of(answer))
        for row, q, answer in zip(rows, asked, answers, strict=True)
    ]
    return sum(grades) / len(grades)


@torch.no_grad()
def generate(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[str]:
    """Greedy answers, one per prompt. Batches are made of prompts of like length, always in the same way.

    Where there are virtual tokens each prompt is answered alone: PEFT puts them before the padding, at a distance that
    training has not seen. That takes several times as long.
    """
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=pad, eos_token_id=tokenizer.eos_token_id
    )
    generator: Any = model  # transformers' types hide `generate` of an auto model
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    batch = 1 if isinstance(model, PeftModelForCausalLM) else GENERATION_BATCH
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        longest = max(len(prompts[i]) for i in chosen)
        ids_BT = torch.tensor([[pad] * (longest - len(prompts[i])) + list(prompts[i]) for i in chosen])
        mask_BT = torch.tensor([[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in chosen])
        with mixed_precision(model.device), _own_settings_aside(model):
            output_BT = generator.generate(
                input_ids=ids_BT.to(model.device), attention_mask=mask_BT.to(model.device), generation_config=config
            )
        for i, new_T in zip(chosen, output_BT[:, longest:], strict=True):
            answers[i] = str(tokenizer.decode(new_T, skip_special_tokens=True)).strip()
    return answers


@contextmanager
def _own_settings_aside(model: CausalModel) -> Iterator[None]:
    """Generation settings shipped with a model (a repetition penalty, say) would join the judge's; keep them out."""
    plain = model.get_base_model() if isinstance(model, PeftModelForCausalLM) else model
    own, plain.generation_config = plain.generation_config, GenerationConfig()
    try:
        yield
    finally:
        plain.generation_config = own
