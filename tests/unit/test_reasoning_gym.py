"""All tasks of reasoning-gym by Luthier's rule: what is right is paid in full, and nothing else is."""

from __future__ import annotations

import pytest

from luthier.dataset import read_rows, write_rows
from luthier.environments import make, reasoning_gym
from luthier.environments.base import Environment, Row
from luthier.environments.eval_safety import harmless
from luthier.environments.reasoning_gym import readings
from luthier.task import EnvironmentSpec
from tests.conformance_environments import NONSENSE, Conformance

SLOW = {"sokoban", "knight_swap", "zebra_puzzles", "intermediate_integration", "puzzle24", "arc_agi", "codeio"}
ANSWERLESS = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}


class TestChainSum(Conformance):
    name = "reasoning_gym/chain_sum"


class TestGsmSymbolic(Conformance):
    name = "reasoning_gym/gsm_symbolic"


class TestSyllogism(Conformance):
    name = "reasoning_gym/syllogism"


class TestPrimeFactorization(Conformance):
    name = "reasoning_gym/prime_factorization"


class TestCountdown(Conformance):
    name = "reasoning_gym/countdown"


class TestSimpleIntegration(Conformance):
    name = "reasoning_gym/simple_integration"


class TestRearc(Conformance):
    name = "reasoning_gym/rearc"


class TestGraphColor(Conformance):
    name = "reasoning_gym/graph_color"


@pytest.mark.parametrize("task", [task for task in reasoning_gym.tasks() if task not in SLOW])
def test_rows_survive_being_stored_right_answers_are_paid_and_nonsense_is_not(task: str) -> None:
    environment = make(EnvironmentSpec(name=f"reasoning_gym/{task}"))
    rows = environment.rows(2, seed=5)
    assert read_rows(write_rows(map(dict, rows))) == rows
    assert all(("completion" in row) is (task not in ANSWERLESS) for row in rows)
    for row in rows:
        if "completion" in row:
            assert reward(environment, row, row["completion"]) == 1.0
            assert reward(environment, row, f"Well…\n<answer>{row['completion']}</answer>") == 1.0
        assert [text[:40] for text in NONSENSE if reward(environment, row, text) != 0.0] == []


@pytest.mark.parametrize(
    ("text", "reference", "found"),
    [
        ("12", "12", "12"),
        ("3 + 9 is 12.", "12", "12"),
        ("First 3.\n\nNo", "No", "No"),
        ("<answer>5</answer> or rather <answer> 6 </answer>", "6", "6"),
    ],
)
def test_an_answer_is_read_as_small_models_write_it(text: str, reference: str, found: str) -> None:
    assert readings(text, reference)[-1] == found


def test_only_the_tagged_answer_counts_where_there_is_one() -> None:
    assert readings("12 <answer>13</answer>", "12") == ["13"]


def test_a_number_in_a_text_is_no_answer_to_a_question_for_words() -> None:
    assert readings("it is 12", "Yes") == ["it is 12", "it is 12"]


def test_partial_credit_is_given_where_it_is_asked_for() -> None:
    whole, partial = (
        make(EnvironmentSpec(name="reasoning_gym/spell_backward", options={"partial": value}))
        for value in (False, True)
    )
    [row] = whole.rows(1, seed=1)
    near = "x" + row["completion"][1:]
    assert reward(whole, row, near) == 0.0
    assert 0.0 < reward(partial, row, near) < 1.0


@pytest.mark.parametrize(
    ("task", "answer", "allowed"),
    [
        ("countdown", "27*(-2 + (5 - 55 + 62)/2)", True),
        ("countdown", "9**9**9", False),
        ("countdown", "print(1)", False),
        ("simple_integration", "-9*x**8/10 + 3*x**4/2 + C", True),
        ("intermediate_integration", "2*(2 - 8*x)**(3/2)/3 + exp(x)*sin(x)", True),
        ("intermediate_integration", "Integral(x, x)", False),
        ("intermediate_integration", "x.__class__", False),
        ("simple_integration", "((9**64)**64)**64", False),
        ("spiral_matrix", "3 9 5", True),
        ("spiral_matrix", "[__import__('os')]", False),
        ("chain_sum", "anything (at all)", True),
        ("chain_sum", "1" * 10_001, False),
    ],
)
def test_a_scorer_that_would_run_an_answer_sees_only_harmless_ones(task: str, answer: str, allowed: bool) -> None:
    assert harmless(task, answer) is allowed


def reward(environment: Environment, row: Row, text: str) -> float:
    episode = environment.begin(row)
    assert list(episode.respond(text)) == []
    return episode.reward()
