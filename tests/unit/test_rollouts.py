"""Rollouts keep the tokens that the model generated, and are rewarded once, at the end of the episode."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from luthier.environments import Episode
from luthier.environments.base import Message
from luthier.errors import TrialFailed
from luthier.graders import grade, sample_of
from luthier.task import DataKind
from tests import data_samples
from tests.playing import MENTIONS_I, world
from workers.cache import Base
from workers.train.data.tokenize import Renderer, Row
from workers.train.rollouts.play import World, one_by_one, play

ROWS = data_samples.pairs(3)


class Echo:
    """Says back what it heard, `turns` - 1 times; the reward is the number of answers that it got."""

    def __init__(self, turns: int, role: str) -> None:
        self.turns, self.role = turns, role
        self.heard: list[str] = []

    def respond(self, answer: str) -> Sequence[Message]:
        self.heard.append(answer)
        if len(self.heard) == self.turns:
            return ()
        return [{"role": self.role, "name": "echo", "content": f"You said: {answer}"}]

    def reward(self) -> float:
        return float(len(self.heard))


def echoing(tiny: Base, *, turns: int, role: str = "user", max_tokens: int = 512) -> tuple[World, list[Echo]]:
    episodes: list[Echo] = []

    def begin(row: Row) -> Episode:
        episodes.append(Echo(turns, role))
        return episodes[-1]

    render = Renderer(tiny.tokenizer, window=512, max_tokens=max_tokens)
    made = World(name="echo", begin=begin, rewards=one_by_one, kind=DataKind.PAIRS, renderer=render, max_new_tokens=6)
    return made, episodes


def test_a_rollout_is_the_prompt_and_then_the_very_tokens_that_were_drawn(tiny: Base) -> None:
    ctx = world(tiny)
    for rollout, row in zip(
        play(tiny.model, ctx, ROWS, attempts=2, seed=5), [r for r in ROWS for _ in "ab"], strict=True
    ):
        prompt = ctx.renderer.prompt(row["prompt"])
        ids, target = rollout.tokens.ids, rollout.tokens.target
        assert ids[: len(prompt)] == prompt
        assert target == (False,) * len(prompt) + (True,) * (len(ids) - len(prompt))
        assert rollout.answer == tiny.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip()
        assert rollout.reward == grade(MENTIONS_I, item={**row, "reference": ""}, sample=sample_of(rollout.answer))


def test_an_answer_ends_with_the_end_token_or_at_the_limit(tiny: Base) -> None:
    said = [r.tokens.ids[-r.tokens.targets :] for r in play(tiny.model, world(tiny), ROWS, attempts=16, seed=5)]
    ended = [ids for ids in said if ids[-1] == tiny.tokenizer.eos_token_id]
    assert 0 < len(ended) < len(said)
    assert all(tiny.tokenizer.eos_token_id not in ids[:-1] for ids in said)
    assert all(len(ids) == 6 for ids in said if ids not in ended)


def test_the_seed_decides_what_is_drawn_and_torchs_own_numbers_stay(tiny: Base) -> None:
    before = torch.random.get_rng_state()
    first = play(tiny.model, world(tiny), ROWS, attempts=2, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.randn(3)
    assert play(tiny.model, world(tiny), ROWS, attempts=2, seed=5) == first
    assert play(tiny.model, world(tiny), ROWS, attempts=2, seed=6) != first


def test_tokens_are_drawn_as_often_as_the_model_says(tiny: Base) -> None:
    """Neither sharpened nor cut off: the mean surprise of what is drawn is the entropy of the model."""
    ctx = world(tiny, max_new_tokens=1)
    prompt = ctx.renderer.prompt(ROWS[0]["prompt"])
    drawn = [r.tokens.ids[-1] for r in play(tiny.model, ctx, ROWS[:1], attempts=512, seed=3)]
    with torch.no_grad():
        logp_V = tiny.model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    entropy = float(-(logp_V.exp() * logp_V).sum())
    spread = float((logp_V.exp() * (logp_V + entropy) ** 2).sum().sqrt())
    surprise = -float(logp_V[torch.tensor(drawn)].mean())
    assert surprise == pytest.approx(entropy, abs=4 * spread / 512**0.5)
    assert len(set(drawn)) > 50  # transformers would keep to 50 candidates by default


@pytest.mark.parametrize("role", ["user", "tool"])
def test_replies_of_the_environment_are_rendered_by_the_chat_template(role: str, tiny: Base) -> None:
    ctx, episodes = echoing(tiny, turns=3, role=role)
    for rollout, row in zip(play(tiny.model, ctx, ROWS * 4, seed=5), ROWS * 4, strict=True):
        episode = episodes.pop(0)
        assert rollout.reward == len(episode.heard) == 3
        assert rollout.answer == episode.heard[-1]
        text = f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n"
        for i, answer in enumerate(said(tiny, rollout.tokens.ids, rollout.tokens.target)):
            last = i == 2
            text += answer.removesuffix("<|im_end|>")
            text += "<|im_end|>" if answer.endswith("<|im_end|>") or not last else ""
            text += (
                "" if last else f"\n<|im_start|>{role}\nYou said: {episode.heard[i]}<|im_end|>\n<|im_start|>assistant\n"
            )
        assert tiny.tokenizer.decode(rollout.tokens.ids) == text


def said(tiny: Base, ids: Sequence[int], target: Sequence[bool]) -> list[str]:
    """The model's answers, one for each stretch of targets."""
    answers: list[list[int]] = []
    for i, (token, is_target) in enumerate(zip(ids, target, strict=True)):
        if is_target and not target[i - 1]:
            answers.append([])
        if is_target:
            answers[-1].append(token)
    return [str(tiny.tokenizer.decode(answer)) for answer in answers]


def test_an_episode_ends_where_no_room_for_an_answer_is_left(tiny: Base) -> None:
    ctx, episodes = echoing(tiny, turns=5, max_tokens=70)
    rollouts = play(tiny.model, ctx, ROWS, seed=5)
    assert all(1 <= len(episode.heard) < 5 for episode in episodes)
    assert all(len(rollout.tokens) <= 70 and rollout.tokens.target[-1] for rollout in rollouts)


def test_a_second_turn_needs_a_chat_template(tiny: Base) -> None:
    ctx, _ = echoing(tiny, turns=2)
    untemplated = copy.deepcopy(tiny.tokenizer)
    untemplated.chat_template = None
    plain = replace(ctx, renderer=Renderer(untemplated, window=512, max_tokens=512))
    with pytest.raises(TrialFailed, match="no chat template"):
        play(tiny.model, plain, ROWS[:1], seed=5)
