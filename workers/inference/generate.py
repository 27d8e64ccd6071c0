"""One answer: the prompt's tokens, the model's, and their text, said as it comes."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from luthier.errors import TrialFailed, UserError
from luthier.worker_protocol import Answered, Question
from workers.inference.detokenize import Speech
from workers.inference.models import Loaded
from workers.train.data.tokenize import Renderer
from workers.train.forward import mixed_precision
from workers.train.rollouts.sampling import own_settings_aside

COLDEST = 0.01  # temperatures below are greedy: the likeliest token alone is left, and dividing by less overflows


@torch.no_grad()
def answer(loaded: Loaded, question: Question, say: Callable[[str], None], unwanted: Callable[[], bool]) -> Answered:
    """Say the answer piece by piece. It ends early once it is `unwanted`.

    Raises UserError for what the model cannot be asked: too long a prompt, or a conversation without a template.
    """
    ids = prompt_ids(loaded, question)
    room = loaded.context - len(ids)
    if room < 1:
        raise UserError(
            f"the prompt has {len(ids)} tokens, and the context of {question.model} ends at {loaded.context}",
            param="prompt" if question.messages is None else "messages",
        )
    speech = Speech(loaded.tokenizer, question.stop)
    streamer = _Streamer(len(ids), speech, say)
    stopping = StoppingCriteriaList([_When(lambda: speech.stopped or unwanted())])
    device = loaded.model.device
    ids_1T = torch.tensor([ids], device=device)
    generator: Any = loaded.model  # transformers' types hide `generate` of an auto model
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        own_settings_aside(loaded.model),
        mixed_precision(device),
    ):
        torch.manual_seed(secrets.randbits(63) if question.seed is None else question.seed)
        generator.generate(
            input_ids=ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            generation_config=_config(loaded, question, room),
            streamer=streamer,
            stopping_criteria=stopping,
        )
    if rest := speech.end():
        say(rest)
    whole = speech.stopped or streamer.last == loaded.tokenizer.eos_token_id
    return Answered(
        finish_reason="stop" if whole else "length", prompt_tokens=len(ids), completion_tokens=streamer.tokens
    )


def prompt_ids(loaded: Loaded, question: Question) -> list[int]:
    """What the model reads before it answers: as the judge renders it, or the bare text."""
    tokenizer = loaded.tokenizer
    if question.messages is None:
        return list(tokenizer(question.prompt)["input_ids"])
    if not tokenizer.chat_template:
        match question.messages:
            case [{"role": "user", "content": str(text)}]:
                return list(tokenizer(text)["input_ids"])
            case _:
                raise UserError(
                    f"{question.model} has no chat template: send one message of the role `user`, or a text to "
                    "/v1/completions",
                    param="messages",
                )
    render = Renderer(tokenizer, window=loaded.context, max_tokens=loaded.context)
    try:
        return list(render.prompt(question.messages))
    except TrialFailed as error:
        raise UserError(error.message, param="messages") from error


def _config(loaded: Loaded, question: Question, room: int) -> GenerationConfig:
    end = loaded.tokenizer.eos_token_id
    pad = loaded.tokenizer.pad_token_id if loaded.tokenizer.pad_token_id is not None else end
    config = GenerationConfig(
        max_new_tokens=min(room, question.max_tokens or room), do_sample=False, pad_token_id=pad, eos_token_id=end
    )
    if question.temperature >= COLDEST and question.top_p > 0:
        config.update(do_sample=True, temperature=question.temperature, top_k=0, top_p=question.top_p)
    return config


class _Streamer(BaseStreamer):
    """Hands on what the model says; the first tokens that it is given are the prompt's."""

    def __init__(self, prompt: int, speech: Speech, say: Callable[[str], None]) -> None:
        self.tokens = 0
        self.last: int | None = None
        self._prompt = prompt
        self._speech = speech
        self._say = say

    def put(self, value: torch.Tensor) -> None:
        ids = value.flatten().tolist()
        skipped, self._prompt = min(self._prompt, len(ids)), max(0, self._prompt - len(ids))
        for token in ids[skipped:]:
            self.tokens += 1
            self.last = token
            if text := self._speech.hear(token):
                self._say(text)

    def end(self) -> None:
        """All that is left is said by whoever asked for the answer."""


class _When(StoppingCriteria):
    def __init__(self, over: Callable[[], bool]) -> None:
        self._over = over

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._over(), device=input_ids.device)
