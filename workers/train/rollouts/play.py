"""Rollouts: a model plays episodes of an environment, and what it said is kept as the very tokens that it said.

The judge and the reward maximisers play in the same way; the judge greedily, training by drawing from the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from luthier.dataset.messages import as_messages
from luthier.environments import Episode, make
from luthier.environments.single_turn import Graded, Question, question
from luthier.errors import TrialFailed
from luthier.task import DataKind, JudgeSpec
from workers.train.data.tokenize import Renderer, Row, Tokens
from workers.train.forward import CausalModel
from workers.train.rollouts.sampling import GENERATION_BATCH, Ids, sample, spoken

MAX_TURNS = 8  # answers of the model in one episode, where the world does not say
SAMPLING_BATCH = 64  # a step's rollouts at once: what they cost is the number of passes through the model


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where a model answers: how an episode of a row of this kind begins, and in what form the model is told of it.

    `max_new_tokens` limits each answer, the renderer's `max_tokens` the whole episode.
    """

    name: str  # of the reward
    begin: Callable[[Row], Episode]
    rewards: Callable[[Sequence[Episode]], list[float]]
    kind: DataKind
    renderer: Renderer
    max_new_tokens: int
    max_turns: int = MAX_TURNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """An episode from its prompt to its end. Targets are the tokens that the model said, its end tokens included.

    `answer` is the last thing it said, as text.
    """

    tokens: Tokens
    answer: str
    reward: float


def world_of(spec: JudgeSpec, renderer: Renderer) -> World | None:
    """The world that the judge's rewards come from; None where nothing says how good an answer is. Preferences only say
    so once a reward model has learnt from them."""
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
    graded = Graded(spec.grader, spec.kind, partial(_spoken, renderer))
    return World(
        name=spec.grader.name,
        begin=graded.begin,
        rewards=graded.rewards,
        kind=spec.kind,
        renderer=renderer,
        max_new_tokens=spec.max_new_tokens,
    )


def one_by_one(episodes: Sequence[Episode]) -> list[float]:
    """Rewards that cost too little to be asked for together."""
    return [episode.reward() for episode in episodes]


def _spoken(renderer: Renderer, asked: Question) -> str | None:
    """The right answer as a generation says it, with tool calls as the chat template writes them."""
    if asked.answer is None or not asked.answer.get("tool_calls"):
        return asked.reference
    return renderer.spoken(as_messages(asked.prompt, "user"), asked.answer, asked.tools)


def _unrewarded(row: Row) -> Episode:
    raise TrialFailed("nothing says how good an answer is until a reward model has been trained on the preferences")


def opening(row: Row, kind: DataKind, renderer: Renderer) -> Ids:
    """The tokens after which the model gives its first answer to a row."""
    asked = question(row, kind)
    return renderer.prompt(asked.prompt, asked.tools)[-renderer.max_tokens :]


def play(
    model: CausalModel, world: World, rows: Sequence[Row], *, attempts: int = 1, seed: int | None = None
) -> list[Rollout]:
    """Episodes of the rows, the `attempts` at a row one after the other.

    With a `seed` answers are drawn from the model's own distribution, at temperature 1; without one they are greedy.
    Raises TrialFailed where the environment answers and the model has no chat template to put that in.
    """
    plays = [_Play(world, row) for row in rows for _ in range(attempts)]
    for turn in range(world.max_turns):
        going = [play for play in plays if not play.over]
        if not going:
            break
        said = sample(
            model,
            world.renderer.tokenizer,
            [play.ids for play in going],
            max_new_tokens=world.max_new_tokens,
            seed=None if seed is None else seed * world.max_turns + turn,
            batch=GENERATION_BATCH if seed is None else SAMPLING_BATCH,
        )
        for play, answer in zip(going, said, strict=True):
            play.hear(answer)
    rewards = world.rewards([play.episode for play in plays])
    return [play.ended(reward) for play, reward in zip(plays, rewards, strict=True)]


class _Play:
    """One episode while it is played."""

    def __init__(self, world: World, row: Row) -> None:
        self._world = world
        self.episode = world.begin(row)
        self.ids = list(opening(row, world.kind, world.renderer))
        self._target = [False] * len(self.ids)
        self._answer = ""
        self.over = False

    def hear(self, said: Ids) -> None:
        """What the model said goes in as it is, what the world says to it as the chat template words it."""
        render = self._world.renderer
        self._extend(said, said=True)
        self._answer = spoken(render.tokenizer, said)
        messages = self.episode.respond(self._answer)
        if messages:
            ended = said[-1] == render.tokenizer.eos_token_id
            self._extend(render.continuation(messages, after_end=ended), said=False)
        room = render.max_tokens - len(self.ids)
        self.over = not messages or room < self._world.max_new_tokens

    def _extend(self, ids: Ids, *, said: bool) -> None:
        self.ids.extend(ids)
        self._target.extend([said] * len(ids))

    def ended(self, reward: float) -> Rollout:
        last = len(self._target) - self._target[::-1].index(True)  # words after the last answer teach nothing
        tokens = Tokens(ids=tuple(self.ids[:last]), target=tuple(self._target[:last]), target_bytes=0)
        return Rollout(tokens=tokens, answer=self._answer, reward=reward)
