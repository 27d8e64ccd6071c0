"""What every environment must do, whoever makes it. Subclass, and say which one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from luthier.dataset import read_rows, write_rows
from luthier.environments import make
from luthier.environments.base import Environment, Row
from luthier.task import EnvironmentSpec

NONSENSE = (
    "",
    " \n",
    "banana",
    "I do not know.",
    "yes no true false",
    "<answer></answer>",
    "<answer>banana</answer>",
    "\x00\ud800 \u202e💥",
    "9" * 5000,
    "1e999",
    "(" * 3000,
    "x" * 200_000,
    "[" * 100_000,
    "9**9**9**99999999",
    "__import__('os').getcwd()",
    "<tool_call>",
    "<tool_call>{</tool_call>",
    "<tool_call>[]</tool_call>",
    "<tool_call>null",
    '<tool_call>{"name": "move"}</tool_call>',
    '<tool_call>{"name": "move", "arguments": []}</tool_call>',
    '<tool_call>{"name": "move", "arguments": {"item": [], "count": true, "from": {}, "to": null}}</tool_call>',
    '<tool_call>{"name": "fly", "arguments": {}}</tool_call>' * 50,
    '<tool_call>{"name": "list_boxes", "arguments": {}}</tool_call>',
    "<tool_call>" + '{"name":' * 5000,
)


class Conformance:
    """The claims. `options` and `count` keep slow generators fast."""

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    count: ClassVar[int] = 5
    max_turns: ClassVar[int] = 8

    @pytest.fixture(scope="class")
    @classmethod
    def environment(cls) -> Environment:
        spec = EnvironmentSpec(name=cls.name, options=dict(cls.options), max_turns=cls.max_turns)
        return make(spec)

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls, environment: Environment) -> list[Row]:
        return environment.rows(cls.count, seed=1)

    def test_the_same_seed_makes_the_same_rows(self, environment: Environment, rows: list[Row]) -> None:
        assert len(rows) == self.count
        assert environment.rows(self.count, seed=1) == rows

    def test_another_seed_makes_other_rows(self, environment: Environment, rows: list[Row]) -> None:
        other = environment.rows(self.count, seed=2)
        assert sum(row in rows for row in other) <= self.count // 2

    def test_rows_survive_json_lines(self, rows: list[Row]) -> None:
        assert read_rows(write_rows(map(dict, rows))) == rows

    def test_every_row_has_a_prompt_that_does_not_hold_its_messages_to_come(self, rows: list[Row]) -> None:
        for row in rows:
            assert row["prompt"]
            if "messages" in row:
                assert row["messages"][: len(row["prompt"])] == row["prompt"]
                assert all(message["role"] != "assistant" for message in row["prompt"])

    def test_nonsense_ends_within_the_limit_and_is_worth_nothing(
        self, environment: Environment, rows: list[Row]
    ) -> None:
        for row in rows:
            for text in NONSENSE:
                episode = environment.begin(row)
                turns = 1
                while episode.respond(text):
                    turns += 1
                assert turns <= self.max_turns
                assert episode.reward() == 0.0, text[:80]

    def test_an_episode_in_which_nothing_was_said_is_worth_nothing(
        self, environment: Environment, rows: list[Row]
    ) -> None:
        assert environment.begin(rows[0]).reward() == 0.0

    def test_what_the_row_holds_as_right_is_a_task_done(self, environment: Environment, rows: list[Row]) -> None:
        for row in read_rows(write_rows(map(dict, rows))):
            if not row.keys() & {"completion", "messages"}:
                continue
            episode = environment.begin(row)
            for text, replies in right(row):
                assert list(episode.respond(text)) == replies
            assert episode.reward() == 1.0

    def test_episodes_of_one_row_do_not_meet(self, environment: Environment, rows: list[Row]) -> None:
        before = json.dumps(rows[0])
        first, second = environment.begin(rows[0]), environment.begin(rows[0])
        for text, _ in right(rows[0]):
            first.respond(text)
        assert second.reward() == 0.0
        assert json.dumps(rows[0]) == before


def right(row: Row) -> Iterator[tuple[str, list[Any]]]:
    """What a right assistant says in a row's episode, and what the world answers each time."""
    if "messages" not in row:
        yield row.get("completion", ""), []
        return
    messages = row["messages"][len(row["prompt"]) :]
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    for start, end in zip(turns, [*turns[1:], len(messages)], strict=True):
        yield said(messages[start]), messages[start + 1 : end]


def said(message: Mapping[str, Any]) -> str:
    """An assistant's message as the text that a model writes."""
    calls = [
        f"<tool_call>{json.dumps({k: call['function'][k] for k in ('name', 'arguments')})}</tool_call>"
        for call in message.get("tool_calls", ())
    ]
    return "\n".join([message["content"], *calls]).strip()
