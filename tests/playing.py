"""Small worlds for the tests of reward maximisation: short answers, and graders that the tiny model meets by chance."""

from __future__ import annotations

from luthier.environments.single_turn import Graded
from luthier.task import DataKind, Grader, StringCheck
from tests import data_samples
from workers.cache import Base
from workers.train.algorithms import Example
from workers.train.algorithms.base import Objective
from workers.train.data.tokenize import Renderer
from workers.train.rollouts.play import World

MENTIONS_I = StringCheck(operation="like", reference="I")  # about every fourth answer of the untrained model does
HAS_D = StringCheck(operation="like", reference="d")


def world(tiny: Base, *, grader: Grader = MENTIONS_I, max_new_tokens: int = 6) -> World:
    """Pairs, graded."""
    graded = Graded(grader, DataKind.PAIRS, lambda asked: asked.reference)
    return World(
        name=grader.name,
        begin=graded.begin,
        rewards=graded.rewards,
        kind=DataKind.PAIRS,
        renderer=Renderer(tiny.tokenizer, window=512, max_tokens=512),
        max_new_tokens=max_new_tokens,
    )


def prompts(learn: Objective, tiny: Base, rows: int) -> list[Example]:
    """What a reward maximiser makes of rows of pairs."""
    render = Renderer(tiny.tokenizer, window=512, max_tokens=512)
    return [example for row in data_samples.pairs(rows) for example in learn.examples(row, DataKind.PAIRS, render)]
