"""Child processes that answer line by line: what one that sleeps, or ends, costs those that ask."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import pytest

from luthier import child_process
from luthier.errors import GraderFault
from luthier.graders import compare, python
from luthier.graders.subprocess import Child

MODULE = "tests.talking_child"
LONG = "x" * 2**20  # more than a pipe holds


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # where a child finds these tests


def child(*arguments: str, seconds: float = 60.0) -> Child:
    return Child("talker", partial(child_process.piped, MODULE, *arguments), seconds)


@pytest.mark.parametrize("question", ["short", LONG])
def test_a_child_that_sleeps_is_stopped(question: str) -> None:
    asleep = child("asleep", seconds=0.5)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"talker.*0\.5 seconds"):
        asleep.ask(question)
    assert time.monotonic() - started < 20
    with pytest.raises(TimeoutError, match=r"0\.2 seconds"):  # of a new process, and within another time
        asleep.ask(question, 0.2)


def test_those_that_wait_for_a_child_that_sleeps_do_not_wait_for_each_other() -> None:
    asleep, failed = child("asleep", seconds=1.0), []

    def ask() -> None:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            asleep.ask("anybody?")
        failed.append(time.monotonic() - started)

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(60)
    assert len(failed) == len(askers)
    assert max(failed) < 6  # eight after each other would take eight


def test_a_child_in_time_answers_and_stays() -> None:
    talker = child("0")
    first, second = talker.ask("one"), talker.ask("two", 30.0)
    assert "one" in first
    assert first.split()[-2] == second.split()[-2]  # the process
    talker.close()


@pytest.mark.parametrize(
    "ask", [lambda: compare.equal("1", "1", 6), lambda: python.load("def grade(s, i): return 1.0")]
)
def test_a_grader_that_sleeps_is_a_fault_of_the_grader(ask: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((compare, "_comparer"), (python, "_sandbox")):
        monkeypatch.setattr(module, name, child("asleep", seconds=0.3))
    assert callable(ask)
    with pytest.raises(GraderFault):
        ask()
