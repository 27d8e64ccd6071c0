"""`multi` is arithmetic over the grades of other graders: never code, and never silently without a value."""

import math
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from luthier.errors import GraderFault
from luthier.graders import assess, check, grade, sample_of
from luthier.graders.formula import Formula
from luthier.task import Multi, Number, StringCheck, TextSimilarity

VALUES = {"a": 0.5, "b": 4.0}
PARTS = {"exact": StringCheck(), "close": TextSimilarity()}


def _value(text: str) -> float:
    return Formula(text, VALUES).value(VALUES)


def _multi(formula: str, **graders: StringCheck | TextSimilarity | Number) -> Multi:
    return Multi(graders=graders or PARTS, calculate_output=formula)


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("a", 0.5),
        ("2", 2),
        ("a + b", 4.5),
        ("a - b", -3.5),
        ("-a", -0.5),
        ("a * b / 8", 0.25),
        ("b ** a", 2),
        ("b ^ a", 2),
        ("2 ^ 3 + 1", 9),
        ("-2 ** 2", -4),
        ("(a + b) * 2", 9),
        ("min(a, b, 0.1)", 0.1),
        ("max(a, b)", 4),
        ("min(a)", 0.5),
        ("abs(-b)", 4),
        ("floor(a)", 0),
        ("ceil(a)", 1),
        ("exp(a)", math.exp(0.5)),
        ("sqrt(b)", 2),
        ("log(b)", math.log(4)),
        (" 0.8*a + 0.2*min(b, 1)\n", 0.6),
        ("1e-3", 0.001),
    ],
)
def test_a_formula_has_the_value_that_mathematics_gives_it(formula: str, value: float) -> None:
    assert _value(formula) == pytest.approx(value)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("", "invalid syntax"),
        ("a +", "invalid syntax"),
        ("a b", "invalid syntax"),
        ("c", "'c'.* a, b"),
        ("__import__('os').system('true')", r"is not allowed.*numbers"),
        ("a.real", r"'a\.real' is not allowed"),
        ("a if b else 1", "is not allowed"),
        ("a > b", "is not allowed"),
        ("a // b", "is not allowed"),
        ("+a", "is not allowed"),
        ("[a]", "is not allowed"),
        ("(lambda: a)()", "is not allowed"),
        ("'text'", "is not allowed"),
        ("True", "is not allowed"),
        ("2j", "is not allowed"),
        ("pow(a, b)", "is not allowed"),
        ("min(a, key=b)", "is not allowed"),
        ("min(*a)", "is not allowed"),
        ("min()", "min needs at least one value"),
        ("log(a, b)", "log takes one value, not 2"),
        ("a := 1", "invalid syntax"),
        ("a; b", "invalid syntax"),
        ("a\0", "."),
        ("9" * 400, "a number in it is too large"),
        ("(" * 400 + "a" + ")" * 400, "."),
    ],
)
def test_what_is_no_arithmetic_is_refused(formula: str, message: str) -> None:
    with pytest.raises(GraderFault, match=message) as refused:
        Formula(formula, VALUES)
    assert (refused.value.kind, refused.value.param) == ("formula_parse_error", "calculate_output")


@pytest.mark.parametrize(
    ("formula", "why"),
    [
        ("a / (b - b)", r"a = 0\.5, b = 4: .*zero"),
        ("(a - a) ** -1", "divides by zero"),
        ("9 ** 9 ** 9", "the result is too large"),
        ("exp(1000)", "the result is too large"),
        ("1e308 * 10", "the result is too large"),
        ("sqrt(-a)", "root or a logarithm"),
        ("log(a - a)", "root or a logarithm"),
        ("(-b) ** a", "root or a logarithm"),
    ],
)
def test_a_formula_without_a_value_says_where_and_why(formula: str, why: str) -> None:
    with pytest.raises(GraderFault, match=why) as refused:
        _value(formula)
    assert refused.value.kind == "other_error"


@pytest.mark.parametrize("formula", ["-" * 499 + "a", "+".join("a" * 250), "sqrt(" * 80 + "a" + ")" * 80])
def test_the_deepest_formula_that_fits_crashes_nothing(formula: str) -> None:
    with suppress(GraderFault):
        assert math.isfinite(_value(formula))


@settings(max_examples=300)
@given(formula=st.text(alphabet="ab0123456789.+-*/^(), minaxloge", max_size=40))
def test_any_text_is_a_formula_with_a_finite_value_or_a_fault(formula: str) -> None:
    with suppress(GraderFault):
        assert math.isfinite(_value(formula))


def test_a_multi_grades_by_its_formula_and_reports_the_parts_by_name() -> None:
    graded = assess(_multi("0.75 * exact + 0.25 * close"), item={"reference": "abce"}, sample=sample_of("abcd"))
    assert graded.sub_rewards == {"exact": 0.0, "close": 0.75}
    assert graded.reward == 0.25 * 0.75
    assert graded.faults == ()


def test_a_multi_may_leave_zero_to_one() -> None:
    assert grade(_multi("2 * exact - 3"), item={"reference": "x"}, sample=sample_of("x")) == -1.0


def test_a_broken_template_of_a_part_raises_and_names_the_part() -> None:
    broken = _multi("exact", exact=StringCheck(reference="{{item.answer}}"))
    with pytest.raises(GraderFault, match=r"graders\.exact: .*item\.answer.*'answer'"):
        grade(broken, item={"reference": "x"}, sample=sample_of("x"))


def test_an_answer_that_is_not_the_json_asked_for_grades_zero_in_its_part_only() -> None:
    parts = {"field": StringCheck(input="{{sample.output_json.city}}"), "length": TextSimilarity()}
    multi = _multi("field + length", **parts)
    item = {"reference": "Paris"}
    assert assess(multi, item=item, sample=sample_of('{"city": "Paris"}')).sub_rewards["field"] == 1.0
    prose = assess(multi, item=item, sample=sample_of("Paris"))
    assert prose.sub_rewards == {"field": 0.0, "length": 1.0}
    assert [fault.kind for fault in prose.faults] == ["sample_parse_error"]
    assert grade(multi, item=item, sample=sample_of("Paris")) == 1.0


@pytest.mark.parametrize(
    ("grader", "field", "message"),
    [
        (_multi("exact +"), "calculate_output", "is not a formula"),
        (_multi("exact + style"), "calculate_output", "'style'.* exact, close"),
        (_multi("exact / close"), "calculate_output", "exact = 0, close = 0: .*zero"),
        (_multi("log(close)"), "calculate_output", "exact = 0, close = 0: .*logarithm"),
        (_multi("min", min=StringCheck()), "graders.min", "'min'.*function"),
        (_multi("x", x=StringCheck(input="{{output}}")), "graders.x.input", "`item.`.*`sample.`"),
        (
            _multi("x", x=StringCheck(reference="{{item.y}}")),
            "graders.x.reference",
            "'y'.* `reference`",
        ),
        (StringCheck(input="{{sample.text}}"), "input", "'text'.* `output_text`, `output_json`"),
    ],
)
def test_a_check_names_the_field_before_anything_is_graded(grader: Multi, field: str, message: str) -> None:
    with pytest.raises(GraderFault, match=message) as refused:
        check(grader, [{"reference": "x"}])
    assert refused.value.param == field


def test_a_sound_grader_passes_the_check() -> None:
    check(_multi("0.9 * exact + 0.1 * log(close + 1)"), [{"reference": "x"}])
    check(StringCheck(input="{{sample.output_json.city}}"), [{"reference": "x"}])


@pytest.mark.parametrize(
    "graders",
    [{}, {"not a name": StringCheck()}, {"inner": _multi("exact")}, {f"g{n}": StringCheck() for n in range(11)}],
)
def test_a_multi_holds_one_to_ten_single_graders_with_names_a_formula_can_use(graders: dict) -> None:
    with pytest.raises(ValidationError):
        Multi(graders=graders, calculate_output="1")
