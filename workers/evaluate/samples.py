"""Samples for people: a model's short greedy answers to the first held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from transformers import PreTrainedTokenizerBase

from luthier.dataset.messages import Message
from luthier.environments.single_turn import question
from luthier.task import DataKind, JudgeSpec
from luthier.trial import Sample
from workers.evaluate.judge import renderer
from workers.train.data.tokenize import Renderer, Row
from workers.train.forward import CausalModel
from workers.train.rollouts.play import opening
from workers.train.rollouts.sampling import Ids, generate

SAMPLES: Final = 3
MAX_TOKENS: Final = 48  # of an answer
BEGINNING: Final = 32  # tokens of a document that the model continues; for a short one the first half
SHOWN: Final = 4000  # characters of a prompt or a reference


def sample_answers(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, spec: JudgeSpec, rows: Sequence[Row]
) -> tuple[Sample, ...]:
    """Return answers to the first rows, the same rows for all trials of a job. Empty for encoders."""
    chosen = rows[:SAMPLES]
    if spec.family == "encoder" or not chosen:
        return ()
    model.eval()
    render = renderer(tokenizer, spec)
    prompts = [_prompt(row, spec.kind, render) for row in chosen]
    answers = generate(model, tokenizer, [ids for ids, _, _ in prompts], min(spec.max_new_tokens, MAX_TOKENS))
    return tuple(
        Sample(prompt=prompt[:SHOWN], reference=None if reference is None else reference[:SHOWN], answer=answer)
        for (_, prompt, reference), answer in zip(prompts, answers, strict=True)
    )


def _prompt(row: Row, kind: DataKind, render: Renderer) -> tuple[Ids, str, str | None]:
    """Return a row's prompt as token ids, and its prompt and reference as readable text."""
    if kind is DataKind.TEXT:
        ids = tuple(render.tokenizer.encode(row["text"], add_special_tokens=False))
        cut = max(1, min(BEGINNING, len(ids) // 2))
        beginning, rest = ids[:cut], ids[cut : cut + MAX_TOKENS]
        first, then = (str(render.tokenizer.decode(list(part))) for part in (beginning, rest))
        return beginning, first, then or None
    asked = question(row, kind)
    return opening(row, kind, render), _text(asked.prompt), _reference(row, kind, asked.reference)


def _reference(row: Row, kind: DataKind, answer: str | None) -> str | None:
    """Return the row's own answer as text; for preferences the chosen one, and none for an undesirable answer."""
    if kind is DataKind.PREFERENCE:
        return _text(row["chosen"])
    if kind is DataKind.UNPAIRED:
        return _text(row["completion"]) if row["label"] else None
    return answer


def _text(content: str | Sequence[Message]) -> str:
    """Return text unchanged, and messages as one paragraph each, with the role in front."""
    if isinstance(content, str):
        return content
    return "\n\n".join(
        f"{message['role']}: {message.get('content') or message.get('tool_calls')}" for message in content
    )
