"""Luthier's own environments, the registry of names, and what is promised whoever wrote an environment."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from luthier.dataset.messages import conversation
from luthier.dataset.tool_calls import tools
from luthier.environments import make
from luthier.environments.base import Environment
from luthier.environments.checked import Guarded
from luthier.environments.tool_calls import Call, Malformed, calls
from luthier.errors import TrialFailed, UserError
from luthier.task import EnvironmentSpec
from tests.conformance_environments import Conformance, right, said


class TestMove(Conformance):
    name = "tools/move"
    count = 20


class TestTheEasiestMove(Conformance):
    name = "tools/move"
    options: ClassVar = {"boxes": 2, "items": 1, "largest": 3}
    count = 20


class TestStore(Conformance):
    name = "tools/store"
    count = 20


class TestTheLongestErrand(Conformance):
    name = "tools/store"
    options: ClassVar = {"steps": 4, "boxes": 8, "items": 8, "largest": 50}
    count = 20


def of(name: str, **options: Any) -> Environment:
    return make(EnvironmentSpec(name=name, options=options))


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.mark.parametrize("name", ["tools/move", "tools/store"])
def test_gold_rows_are_chats_that_a_user_might_have_uploaded(name: str) -> None:
    for row in of(name).rows(5, seed=0):
        assert conversation(row["messages"], "messages") == row["messages"]
        assert tools(row["tools"], "tools") == row["tools"]


def test_the_right_changes_with_a_wrong_last_word_are_worth_nothing() -> None:
    environment = of("tools/store")
    [row] = environment.rows(1, seed=4)
    episode = environment.begin(row)
    *steps, _ = right(row)
    for text, _ in steps:
        episode.respond(text)
    episode.respond(f"There are {row['expected'] + 1}.")
    assert episode.reward() == 0.0


def test_the_right_last_word_without_the_changes_is_worth_nothing() -> None:
    environment = of("tools/store")
    [row] = environment.rows(1, seed=4)
    episode = environment.begin(row)
    assert list(episode.respond(said(row["messages"][-1]))) == []
    assert episode.reward() == 0.0


def test_a_call_that_cannot_be_carried_out_is_answered_and_changes_nothing() -> None:
    environment = of("tools/store", boxes=2, items=1)
    [row] = environment.rows(1, seed=1)
    episode = environment.begin(row)
    before = environment.begin(row).respond(call("look_in", box="A"))
    wrong = [
        call("move", item="apples", count=999, **{"from": "A", "to": "B"}),
        call("move", item="apples", count=-1, **{"from": "A", "to": "B"}),
        call("add", item="apples", count=10**9, box="A"),
        call("add", item="gold", count=1, box="A"),
        call("look_in", box="Z"),
        call("fly"),
        "<tool_call>{oops}</tool_call>",
    ]
    replies = episode.respond("".join(wrong))
    assert [reply["role"] for reply in replies] == ["tool"] * 7
    assert all("error" in json.loads(reply["content"]) for reply in replies)
    assert episode.respond(call("look_in", box="A")) == before


def test_an_errand_without_a_question_is_over_when_it_is_done() -> None:
    environment = of("tools/move")
    [row] = environment.rows(1, seed=1)
    episode = environment.begin(row)
    [(text, _)] = right(row)
    assert list(episode.respond(text)) == []
    episode.respond(text)  # too late to spoil it
    assert episode.reward() == 1.0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hello", []),
        ('a<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>b', [Call(name="f", arguments={"x": 1})]),
        ('<tool_call>\n{"name": "f", "arguments": {}}', [Call(name="f", arguments={})]),
        (
            '<tool_call>{"name": "f"}</tool_call>',
            [Malformed(why='a tool call must have a "name" and an object of "arguments"')],
        ),
        ("<tool_call>f(1)</tool_call>", [Malformed(why="a tool call must be a JSON object")]),
    ],
)
def test_calls_are_read_from_text(text: str, found: list[Call | Malformed]) -> None:
    assert calls(text) == found


@pytest.mark.parametrize(
    ("name", "options", "param", "words"),
    [
        ("tools/mvoe", {}, "task.environment.name", "tools/move"),
        ("nothing like it", {}, "task.environment.name", "GET /v1/environments"),
        ("reasoning_gym/chain_sun", {}, "task.environment.name", "reasoning_gym/chain_sum"),
        ("reasoning_gym/game_of_life_halting", {}, "task.environment.name", "game_of_life_halting"),
        ("reasoning_gym/composite", {}, "task.environment.name", "composite"),
        ("tools/move", {"box": 3}, "task.environment.options.box", "boxes, items, largest"),
        ("tools/move", {"boxes": 1}, "task.environment.options.boxes", "greater than or equal to 2, found 1"),
        ("tools/move", {"boxes": "many"}, "task.environment.options.boxes", "found 'many'"),
        ("reasoning_gym/chain_sum", {"terms": 3}, "task.environment.options.terms", "min_terms, max_terms"),
        ("reasoning_gym/chain_sum", {"min_terms": "x"}, "task.environment.options.min_terms", "integer"),
        ("reasoning_gym/chain_sum", {"min_terms": 9}, "task.environment.options", "max_terms must be >= min_terms"),
        ("reasoning_gym/chain_sum", {"size": 9}, "task.environment.options.size", "no option"),
    ],
)
def test_a_wrong_name_or_option_is_refused_with_what_is_legal(
    name: str, options: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(UserError) as refusal:
        of(name, **options)
    assert refusal.value.param == param
    assert words in refusal.value.message


class Broken:
    """Raises wherever it is asked to."""

    def __init__(self, where: str) -> None:
        self.where = where

    def rows(self, count: int, seed: int) -> list[Any]:
        raise KeyError(self.where)

    def begin(self, row: Any) -> Broken:
        return self

    def respond(self, answer: str) -> list[Any]:
        if self.where == "respond":
            raise KeyError("respond")
        return [{"role": "tool", "content": "go on"}]

    def reward(self) -> float:
        if self.where == "reward":
            raise KeyError("reward")
        return float("nan")


@pytest.mark.parametrize(
    ("where", "words"),
    [("respond", "`respond`: KeyError"), ("reward", "`reward`: KeyError"), ("", "not a finite number")],
)
def test_a_fault_of_an_environment_fails_with_its_name(where: str, words: str) -> None:
    episode = Guarded(Broken(where), EnvironmentSpec(name="acme/doors")).begin({})
    with pytest.raises(TrialFailed, match="acme/doors") as failure:
        _ = [episode.respond("hello"), episode.reward()]
    assert words in failure.value.message


def test_an_episode_ends_after_so_many_answers_whatever_the_world_says() -> None:
    episode = Guarded(Broken("-"), EnvironmentSpec(name="acme/doors", max_turns=3)).begin({})
    assert [len(episode.respond("hello")) for _ in range(5)] == [1, 1, 0, 0, 0]
