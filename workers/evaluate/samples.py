"""Samples for people: what a model says to a few held-out prompts, greedily and not for long."""

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
MOST_TOKENS: Final = 48
BEGINNING: Final = 32  # tokens of a plain text that the model is to go on with; of a short one the first half
SHOWN: Final = 4000  # characters of a prompt or a reference


def spoken_samples(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, spec: JudgeSpec, rows: Sequence[Row]
) -> tuple[Sample, ...]:
    """Of the first rows: the same for all trials of a job. None of encoders, which do not answer."""
    chosen = rows[:SAMPLES]
    if spec.family == "encoder" or not chosen:
        return ()
    model.eval()
    render = renderer(tokenizer, spec)
    asked = [_asked(row, spec.kind, render) for row in chosen]
    answers = generate(model, tokenizer, [ids for ids, _, _ in asked], min(spec.max_new_tokens, MOST_TOKENS))
    return tuple(
        Sample(prompt=prompt[:SHOWN], reference=None if reference is None else reference[:SHOWN], answer=answer)
        for (_, prompt, reference), answer in zip(asked, answers, strict=True)
    )


def _asked(row: Row, kind: DataKind, render: Renderer) -> tuple[Ids, str, str | None]:
    """The tokens of a row's prompt, and prompt and reference as people read them."""
    if kind is DataKind.TEXT:
        ids = tuple(render.tokenizer.encode(row["text"], add_special_tokens=False))
        cut = max(1, min(BEGINNING, len(ids) // 2))
        beginning, rest = ids[:cut], ids[cut : cut + MOST_TOKENS]
        first, then = (str(render.tokenizer.decode(list(part))) for part in (beginning, rest))
        return beginning, first, then or None
    asked = question(row, kind)
    return opening(row, kind, render), _words(asked.prompt), _reference(row, kind, asked.reference)


def _reference(row: Row, kind: DataKind, answer: str | None) -> str | None:
    """What the row says to its prompt; of preferences the better answer."""
    if kind is DataKind.PREFERENCE:
        return _words(row["chosen"])
    if kind is DataKind.UNPAIRED:
        return _words(row["completion"]) if row["label"] else None
    return answer


def _words(said: str | Sequence[Message]) -> str:
    """Text as it is; of messages one paragraph each, with who says it."""
    if isinstance(said, str):
        return said
    return "\n\n".join(f"{message['role']}: {message.get('content') or message.get('tool_calls')}" for message in said)
