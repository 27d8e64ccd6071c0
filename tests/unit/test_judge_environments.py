"""Environments in the judge and in online RL."""

from __future__ import annotations

import ast

import pytest

from luthier.dataset import Row
from luthier.environments import make
from luthier.environments.single_turn import question
from luthier.task import DataKind, EnvironmentSpec, JudgeSpec, Multi, Number
from workers.cache import Base
from workers.evaluate.judge import judge, renderer
from workers.templates import render
from workers.train.rollouts.play import play, world_of
from workers.train.rollouts.sampling import generate

PAYS_FOR_ANYTHING = EnvironmentSpec(name="reasoning_gym/power_function", options={"partial": True})
STORE = EnvironmentSpec(name="tools/store", max_turns=2)


def spec(kind: DataKind, environment: EnvironmentSpec) -> JudgeSpec:
    return JudgeSpec(kind=kind, validation="v", test="t", objective="reward", environment=environment, max_new_tokens=8)


def rows(environment: EnvironmentSpec, count: int) -> list[Row]:
    return [dict(row) for row in make(environment).rows(count, seed=1)]


def test_the_reward_is_the_mean_of_what_the_environment_pays_for_greedy_answers(tiny: Base) -> None:
    wanted, asked = spec(DataKind.PAIRS, PAYS_FOR_ANYTHING), rows(PAYS_FOR_ANYTHING, 4)
    metrics = judge(tiny.model, tiny.tokenizer, wanted, asked)
    render = renderer(tiny.tokenizer, wanted)
    answers = generate(tiny.model, tiny.tokenizer, [render.prompt(row["prompt"]) for row in asked], 8)
    paid = []
    for row, answer in zip(asked, answers, strict=True):
        episode = make(PAYS_FOR_ANYTHING).begin(row)
        episode.respond(answer)
        paid.append(episode.reward())
    assert max(paid) > 0
    assert metrics.reward == pytest.approx(sum(paid) / 4)
    assert metrics.reward_name == "reasoning_gym/power_function"


def test_an_episode_starts_at_the_prompt_and_not_at_the_last_word_of_the_right_conversation() -> None:
    [row] = rows(STORE, 1)
    asked = question(row, DataKind.CHAT)
    assert asked.prompt == row["prompt"]
    assert asked.tools == row["tools"]
    assert question({"messages": row["messages"]}, DataKind.CHAT).prompt == row["messages"][:-1]


def test_a_model_that_calls_nothing_is_played_to_an_end_without_reward(tiny: Base) -> None:
    wanted, asked = spec(DataKind.CHAT, STORE), rows(STORE, 2)
    world = world_of(wanted, renderer(tiny.tokenizer, wanted))
    assert world is not None
    assert world.max_turns == 2
    assert [rollout.reward for rollout in play(tiny.model, world, asked)] == [0.0, 0.0]


def test_a_judge_is_a_cache_key() -> None:
    graded = JudgeSpec(
        kind=DataKind.PAIRS,
        validation="v",
        test="t",
        objective="reward",
        grader=Multi(graders={"number": Number()}, calculate_output="number"),
    )
    played = spec(DataKind.CHAT, EnvironmentSpec(name="tools/store", options={"boxes": 3}))
    assert len({graded, played, graded.model_copy(), played.model_copy()}) == 2


def test_the_script_of_a_model_trained_in_an_environment_names_the_command_that_searches_again() -> None:
    script = render("reproduce_environment.jinja", environment=PAYS_FOR_ANYTHING, base="tiny", recipe="sft+grpo")
    with pytest.raises(SystemExit) as end:
        exec(script, {"__doc__": ast.get_docstring(ast.parse(script))})
    command = (
        "submit --environment reasoning_gym/power_function --rows 256 --algorithm sft+grpo --option 'partial=true'"
    )
    assert command in str(end.value)
