"""Rollouts: a model plays episodes of an environment. Its answers keep the exact tokens that it generated.

The judge and online RL use the same code; the judge decodes greedily, training samples from the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from luthier.dataset.messages import as_messages
from luthier.environments import Episode, make
from luthier.environments.single_turn import Graded, Question, question
from luthier.errors import TrialFailed
from luthier.task import DataKind, JudgeSpec
from workers.train.data.tokenize import Renderer, Row, Tokens
from workers.train.forward import CausalModel
from workers.train.rollouts.sampling import Ids, decode, sample
from workers.train.rollouts.stopping import stop_ids

MAX_TURNS: Final = 8  # most answers of the model in one episode, unless the environment sets another limit
SAMPLING_BATCH: Final = 64  # rollouts sampled at once; their cost is mostly the number of forward passes


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The setting of rollouts: how episodes begin, how they are rewarded, and how prompts are rendered.

    name            name of the reward
    begin           starts the episode of a row
    rewards         returns the rewards of finished episodes
    max_new_tokens  limit of each answer; the renderer's `max_tokens` limits the whole episode
    """

    name: str
    begin: Callable[[Row], Episode]
    rewards: Callable[[Sequence[Episode]], list[float]]
    kind: DataKind
    renderer: Renderer
    max_new_tokens: int
    max_turns: int = MAX_TURNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A finished episode. The targets are the tokens that the model generated, end tokens included.

    `answer` is its last answer, as text.
    """

    tokens: Tokens
    answer: str
    reward: float


def world_of(spec: JudgeSpec, renderer: Renderer) -> World | None:
    """Return the world of the judge's rewards; None if the task has none.

    For preference data the rewards come from a reward model, and asking for one before it is trained fails.
    """
    if spec.environment is not None:
        return World(
            name=spec.environment.name,
            begin=make(spec.environment).begin,
            rewards=one_by_one,
            kind=spec.kind,
            renderer=renderer,
            max_new_tokens=spec.max_new_tokens,
            max_turns=spec.environment.max_turns,
        )
    if spec.kind is DataKind.PREFERENCE:
        return World(
            name="reward_model",
            begin=_unrewarded,
            rewards=one_by_one,
            kind=spec.kind,
            renderer=renderer,
            max_new_tokens=spec.max_new_tokens,
        )
    if spec.grader is None or spec.kind in (DataKind.TEXT, DataKind.UNPAIRED):
        return None
    graded = Graded(spec.grader, spec.kind, partial(_reference, renderer))
    return World(
        name=spec.grader.name,
        begin=graded.begin,
        rewards=graded.rewards,
        kind=spec.kind,
        renderer=renderer,
        max_new_tokens=spec.max_new_tokens,
    )


def one_by_one(episodes: Sequence[Episode]) -> list[float]:
    """Return the episodes' own rewards, which are cheap and need no batching."""
    return [episode.reward() for episode in episodes]


def _reference(renderer: Renderer, asked: Question) -> str | None:
    """Return the reference answer as a model would generate it, with tool calls in the chat template's format."""
    if asked.answer is None or not asked.answer.get("tool_calls"):
        return asked.reference
    return renderer.as_generated(as_messages(asked.prompt, "user"), asked.answer, asked.tools)


def _unrewarded(row: Row) -> Episode:
    raise TrialFailed("preference data has no reward before a `reward_model` stage was trained on it")


def opening(row: Row, kind: DataKind, renderer: Renderer) -> Ids:
    """Return the prompt of a row as token ids, truncated on the left."""
    asked = question(row, kind)
    return renderer.prompt(asked.prompt, asked.tools)[-renderer.max_tokens :]


def play(
    model: CausalModel, world: World, rows: Sequence[Row], *, attempts: int = 1, seed: int | None = None
) -> list[Rollout]:
    """Play `attempts` episodes of each row. Return their rollouts in that order: row by row, attempts together.

    With a `seed` answers are sampled at temperature 1; without one decoding is greedy. Raises TrialFailed if the
    environment replies and the model has no chat template to render the reply.
    """
    ends = stop_ids(model, world.renderer.tokenizer)
    plays = [_Play(world, row, ends) for row in rows for _ in range(attempts)]
    for turn in range(world.max_turns):
        going = [play for play in plays if not play.over]
        if not going:
            break
        answers = sample(
            model,
            world.renderer.tokenizer,
            [play.ids for play in going],
            max_new_tokens=world.max_new_tokens,
            seed=None if seed is None else seed * world.max_turns + turn,
            batch=None if seed is None else SAMPLING_BATCH,
        )
        for play, answer in zip(going, answers, strict=True):
            play.advance(answer)
    rewards = world.rewards([play.episode for play in plays])
    return [play.rollout(reward) for play, reward in zip(plays, rewards, strict=True)]


class _Play:
    """An episode in progress."""

    def __init__(self, world: World, row: Row, ends: Sequence[int]) -> None:
        self._world = world
        self._ends = ends
        self.episode = world.begin(row)
        self.ids = list(opening(row, world.kind, world.renderer))
        self._target = [False] * len(self.ids)
        self._answer = ""
        self.over = False

    def advance(self, answer: Ids) -> None:
        """Append the model's answer as generated, and the environment's reply as the chat template renders it."""
        render = self._world.renderer
        self._append(answer, generated=True)
        self._answer = decode(render.tokenizer, answer)
        messages = self.episode.respond(self._answer)
        if messages:
            ended = answer[-1] in self._ends
            self._append(render.continuation(messages, after_end=ended), generated=False)
        room = render.max_tokens - len(self.ids)
        self.over = not messages or room < self._world.max_new_tokens

    def _append(self, ids: Ids, *, generated: bool) -> None:
        self.ids.extend(ids)
        self._target.extend([generated] * len(ids))

    def rollout(self, reward: float) -> Rollout:
        last = len(self._target) - self._target[::-1].index(True)  # nothing after the last answer is needed
        tokens = Tokens(ids=tuple(self.ids[:last]), target=tuple(self._target[:last]), target_bytes=0)
        return Rollout(tokens=tokens, answer=self._answer, reward=reward)
