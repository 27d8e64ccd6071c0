"""`number` and `math` compare what an answer comes to, not how it is written."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.graders import assess, compare, grade, sample_of
from luthier.graders.compare import last_number
from luthier.task import Math, Number


def _number(answer: str, reference: str, **options: float) -> float:
    return grade(Number(**options), item={"reference": reference}, sample=sample_of(answer))


def _math(answer: str, reference: str) -> float:
    return grade(Math(), item={"reference": reference}, sample=sample_of(answer))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 72.", 72),
        ("first 3, then 4", 4),
        ("-5", -5),
        ("−5", -5),
        ("10 - 5", 5),
        ("10-5", 5),
        ("f(2)-3", 3),
        ("$1,234,567.50", 1234567.5),
        ("1,2,3", 3),
        ("12,34", 34),
        (".5", 0.5),
        ("6.02e23 molecules", 6.02e23),
        ("50%", 50),
        ("it is 7 m of H2O", 7),
        ("答案是72。", 72),
        ("#### 18", 18),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number_of_a_text_is_found(text: str, number: float | None) -> None:
    assert last_number(text) == number


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_that_python_writes_is_read_back(number: float) -> None:
    assert last_number(f"it is {number!r}") == number


@pytest.mark.parametrize(
    ("answer", "reference", "tolerance", "score"),
    [
        ("12.0", "12", 0, 1),
        ("12.1", "12", 0, 0),
        ("12.1", "12", 0.01, 1),  # 0.1 is less than a hundredth of 12
        ("12.2", "12", 0.01, 0),
        ("0.05", "0", 0.05, 1),  # below 1 the tolerance is absolute
        ("0.06", "0", 0.05, 0),
        ("no idea", "12", 1, 0),
        ("1" + "0" * 400, "1" + "0" * 400, 0, 0),  # beyond the numbers there are
    ],
)
def test_numbers_are_equal_within_the_tolerance(answer: str, reference: str, tolerance: float, score: float) -> None:
    assert _number(answer, reference, tolerance=tolerance) == score


def test_rounding_of_the_last_digits_is_no_mistake_unless_asked_for() -> None:
    assert _number("0.3333333333", str(1 / 3)) == 1.0
    assert _number("0.333", str(1 / 3)) == 0.0


@pytest.mark.parametrize("grader", [Number(), Math()], ids=lambda grader: grader.type)
def test_a_reference_without_an_answer_grades_zero_and_is_reported(grader: Number | Math) -> None:
    graded = assess(grader, item={"reference": "as above"}, sample=sample_of("72"))
    assert graded.reward == 0.0
    assert [fault.kind for fault in graded.faults] == ["other_error"]
    assert grade(grader, item={"reference": "as above"}, sample=sample_of("72")) == 0.0


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("0.5", r"\frac{1}{2}", 1),
        (r"The answer is \boxed{\frac{2}{4}}.", "1/2", 1),
        (r"$2\sqrt{2}$", r"\sqrt{8}", 1),
        ("(x+1)^2", "x^2+2x+1", 1),
        ("(x-1)^2", "x^2+2x+1", 0),
        (r"$\{2, 1\}$", r"$\{1, 2\}$", 1),
        ("x = 72", "72", 1),
        ("The answer is 72.", "so it is #### 72", 1),
        ("10%", "0.1", 1),
        ("5", "-5", 0),
        ("3", r"\sqrt{3}", 0),
        ("0.333", "1/3", 0),
        ("0.3333333", "1/3", 1),
        ("no idea", "72", 0),
        ("", "72", 0),
        ("$(((", "72", 0),
    ],
)
def test_expressions_are_equal_as_mathematics_has_it(answer: str, reference: str, score: float) -> None:
    assert _math(answer, reference) == score


def test_an_endless_comparison_grades_zero_and_the_next_one_is_right_again() -> None:
    graded = assess(Math(), item={"reference": "72"}, sample=sample_of("$9^{9^{9^9}}$"))
    assert graded.reward == 0.0
    assert "limits" in graded.faults[0].message
    assert _math("72", "72") == 1.0


def test_a_comparer_that_was_killed_is_started_again() -> None:
    assert _math("72", "72") == 1.0
    process = compare._comparer._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert _math("72", "72") == 1.0


def test_threads_get_each_their_own_answer() -> None:
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda n: _math(str(n), str(n - n % 2)), range(20))) == [1.0, 0.0] * 10
