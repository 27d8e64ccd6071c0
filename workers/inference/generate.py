"""Generate one answer and stream its text."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from luthier.errors import TrialFailed, UserError
from luthier.worker_protocol import Answered, Question
from workers.inference.detokenize import StreamDecoder
from workers.inference.models import Loaded
from workers.train.data.tokenize import Renderer
from workers.train.forward import mixed_precision
from workers.train.rollouts.sampling import generation_config, without_own_settings
from workers.train.rollouts.stopping import stop_ids


@torch.no_grad()
def answer(loaded: Loaded, question: Question, say: Callable[[str], None], cancelled: Callable[[], bool]) -> Answered:
    """Generate an answer, passing its text to `say` piece by piece. Stops early once `cancelled` returns true.

    Raises UserError if the prompt exceeds the context, or if the model has no chat template for a conversation.
    """
    ids = prompt_ids(loaded, question)
    room = loaded.context - len(ids)
    if room < 1:
        raise UserError(
            f"the prompt has {len(ids)} tokens, too many for the context of {question.model}: {loaded.context} tokens",
            param="prompt" if question.messages is None else "messages",
        )
    decoder = StreamDecoder(loaded.tokenizer, question.stop)
    streamer = _Streamer(len(ids), decoder, say)
    stopping = StoppingCriteriaList([_StopWhen(lambda: decoder.stopped or cancelled())])
    device = loaded.model.device
    ends = stop_ids(loaded.model, loaded.tokenizer)
    ids_1T = torch.tensor([ids], device=device)
    generator: Any = loaded.model  # transformers' types hide `generate` of an auto model
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        without_own_settings(loaded.model),
        mixed_precision(device),
    ):
        torch.manual_seed(secrets.randbits(63) if question.seed is None else question.seed)
        generator.generate(
            input_ids=ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            generation_config=generation_config(
                loaded.tokenizer,
                ends,
                min(room, question.max_tokens or room),
                temperature=question.temperature,
                top_p=question.top_p,
            ),
            streamer=streamer,
            stopping_criteria=stopping,
        )
    if rest := decoder.end():
        say(rest)
    whole = decoder.stopped or streamer.last in ends
    return Answered(
        finish_reason="stop" if whole else "length", prompt_tokens=len(ids), completion_tokens=streamer.tokens
    )


def prompt_ids(loaded: Loaded, question: Question) -> list[int]:
    """Return the prompt as token ids: a conversation rendered as the judge renders it, or plain text.

    Raises UserError if a conversation cannot be rendered.
    """
    render = Renderer(loaded.tokenizer, window=loaded.context, max_tokens=loaded.context)
    if question.messages is None:
        return list(render.opening(question.prompt or ""))
    if not loaded.tokenizer.chat_template:
        match question.messages:
            case [{"role": "user", "content": str(text)}]:
                return list(render.opening(text))
            case _:
                raise UserError(
                    f"{question.model} has no chat template: send a single `user` message, or use /v1/completions",
                    param="messages",
                )
    try:
        return list(render.prompt(question.messages))
    except TrialFailed as error:
        raise UserError(error.message, param="messages") from error


class _Streamer(BaseStreamer):
    """Passes on the text of generated tokens. The first `prompt` tokens that it receives are the prompt's own."""

    def __init__(self, prompt: int, decoder: StreamDecoder, say: Callable[[str], None]) -> None:
        self.tokens = 0
        self.last: int | None = None
        self._prompt = prompt
        self._decoder = decoder
        self._say = say

    def put(self, value: torch.Tensor) -> None:
        ids = value.flatten().tolist()
        skipped, self._prompt = min(self._prompt, len(ids)), max(0, self._prompt - len(ids))
        for token in ids[skipped:]:
            self.tokens += 1
            self.last = token
            if text := self._decoder.push(token):
                self._say(text)

    def end(self) -> None:
        """Nothing to do: `answer` passes on the rest of the text."""


class _StopWhen(StoppingCriteria):
    def __init__(self, over: Callable[[], bool]) -> None:
        self._over = over

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._over(), device=input_ids.device)
