"""Graders: how good an answer is.

`string_check`, `text_similarity` and `multi` are OpenAI's; `number` and `math` are Luthier's own. A single grader gives
0.0 to 1.0, `multi` gives what its formula gives. What is wrong with a grader raises; what is wrong with one answer, or
with one row's reference, grades 0.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from luthier.errors import GraderFault
from luthier.graders.formula import FUNCTIONS, Formula
from luthier.graders.mathematics import equal
from luthier.graders.numbers import close, last_number
from luthier.graders.templates import check_paths, fill, sample_of
from luthier.graders.text import holds, similarity
from luthier.task import Grader, Math, Multi, Number, SingleGrader, StringCheck, TextSimilarity

__all__ = ["Graded", "assess", "check", "fill", "grade", "sample_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Graded:
    """A grade, the grades that a `multi` made it from, and what went wrong on the way."""

    reward: float
    sub_rewards: dict[str, float]
    faults: tuple[GraderFault, ...]


def grade(grader: Grader, *, item: Mapping[str, Any], sample: Mapping[str, Any]) -> float:
    """Grade one answer: `item` is the row with its extra columns, `sample` is `sample_of` the answer.

    Raises GraderFault for a grader that is wrong in itself: a template whose path no row has, a formula that is none.
    """
    graded = assess(grader, item=item, sample=sample)
    for fault in graded.faults:
        if fault.kind in ("invalid_variable_error", "formula_parse_error"):
            raise fault
    return graded.reward


def assess(grader: Grader, *, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Graded:
    """Like `grade`, but whatever goes wrong is in `faults`, and graded 0.0."""
    if not isinstance(grader, Multi):
        reward, faults = _attempt(grader, item, sample)
        return Graded(reward=reward, sub_rewards={}, faults=faults)
    parts = {name: _attempt(part, item, sample) for name, part in grader.graders.items()}
    rewards = {name: reward for name, (reward, _) in parts.items()}
    found = [
        GraderFault(f"graders.{name}: {fault.message}", kind=fault.kind)
        for name, (_, faults) in parts.items()
        for fault in faults
    ]
    try:
        reward = Formula(grader.calculate_output, rewards).value(rewards)
    except GraderFault as fault:
        reward = 0.0
        found.append(fault)
    return Graded(reward=reward, sub_rewards=rewards, faults=tuple(found))


def check(grader: Grader, items: Iterable[Mapping[str, Any]] = ()) -> None:
    """Look for what would be wrong with any answer, and for templates that one of the rows cannot fill.

    Raises GraderFault whose `param` is the path of the field within the grader.
    """
    if isinstance(grader, Multi):
        for name in grader.graders:
            if name in FUNCTIONS:
                raise GraderFault(
                    f"{name!r} is a function in formulas: give the grader another name", param=f"graders.{name}"
                )
        Formula(grader.calculate_output, grader.graders).check()
    templates = list(_templates(grader))
    for field, template in templates:
        try:
            check_paths(template)
            for item in items:
                _fill_if_answered(template, item)
        except GraderFault as fault:
            fault.param = field
            raise


def _attempt(
    grader: SingleGrader, item: Mapping[str, Any], sample: Mapping[str, Any]
) -> tuple[float, tuple[GraderFault, ...]]:
    try:
        given = fill(grader.input, item=item, sample=sample)
        reference = fill(grader.reference, item=item, sample=sample)
        return _compare(grader, given, reference), ()
    except GraderFault as fault:
        return 0.0, (fault,)


def _compare(grader: SingleGrader, given: str, reference: str) -> float:
    match grader:
        case StringCheck():
            return float(holds(grader, given, reference))
        case TextSimilarity():
            return similarity(grader.evaluation_metric, given, reference)
        case Number():
            number, expected = last_number(given), last_number(reference)
            if expected is None:
                raise GraderFault("the reference holds no number")
            return float(number is not None and close(number, expected, grader.tolerance))
        case Math():
            return float(equal(given, reference, grader.float_rounding))


def _templates(grader: Grader) -> Iterator[tuple[str, str]]:
    if isinstance(grader, Multi):
        for name, part in grader.graders.items():
            for field, template in _templates(part):
                yield f"graders.{name}.{field}", template
    else:
        yield "input", grader.input
        yield "reference", grader.reference


def _fill_if_answered(template: str, item: Mapping[str, Any]) -> None:
    try:
        fill(template, item=item, sample=sample_of(""))
    except GraderFault as fault:
        if fault.kind != "sample_parse_error":
            raise
