"""Graders: score the answers of a model.

`string_check`, `text_similarity`, `python`, `score_model`, `label_model` and `multi` are OpenAI's; `number` and `math`
are Luthier's. Grades lie between 0.0 and 1.0, except for `score_model` (its own range) and for `python` and `multi`
(whatever the code or formula returns). Errors of the grader, the machine or the grader API raise. Errors of one answer
or of one row's reference give the grade 0.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from luthier.errors import GraderFault
from luthier.graders import llm_judge, python
from luthier.graders.compare import close, equal, holds, last_number, similarity
from luthier.graders.endpoint import Endpoint
from luthier.graders.formula import FUNCTIONS, Formula
from luthier.graders.templates import check_paths, fill, sample_of
from luthier.settings import GraderSettings
from luthier.task import (
    Grader,
    LabelModel,
    Math,
    Multi,
    Number,
    Python,
    ScoreModel,
    SingleGrader,
    StringCheck,
    TextSimilarity,
)

__all__ = ["Graded", "assess", "check", "fill", "grade", "grade_many", "require", "sample_of"]

Answer = tuple[Mapping[str, Any], Mapping[str, Any]]
"""The row with its extra columns (`item`), and `sample_of` the answer."""

# Attempts at a failing endpoint: of a trial, which would fail otherwise (about a minute), and of an API request.
ATTEMPTS: Final = 8
ATTEMPTS_OF_ONE: Final = 2

# Errors that are not the answer's fault: they would occur for every answer.
RAISED: Final = (
    "invalid_variable_error",
    "formula_parse_error",
    "python_grader_server_error",
    "model_grader_server_error",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Graded:
    """A grade, the sub-grades of a `multi` grader, the errors, and the tokens used by each model."""

    reward: float
    sub_rewards: dict[str, float] = field(default_factory=dict)
    faults: tuple[GraderFault, ...] = ()
    tokens: dict[str, int] = field(default_factory=dict)


def grade(
    grader: Grader, *, item: Mapping[str, Any], sample: Mapping[str, Any], settings: GraderSettings | None = None
) -> float:
    """Return the grade of one answer: `item` is the row with its extra columns, `sample` is `sample_of` the answer.

    Raises the errors of `grade_many`.
    """
    [reward] = grade_many(grader, [(item, sample)], settings)
    return reward


def grade_many(grader: Grader, answers: Sequence[Answer], settings: GraderSettings | None = None) -> list[float]:
    """Return the grades of many answers, in order. Requests to models run concurrently.

    `settings` default to those of the environment. Raises GraderFault if the grader is invalid (a template path that
    no row has, an invalid formula), if the settings do not allow it, or if it cannot grade now (the endpoint does not
    answer, or the code cannot be isolated).
    """
    settings = settings or GraderSettings()
    require(grader, settings)
    if not _asks_a_model(grader):
        return [_sound(_assess(grader, item, sample, None)).reward for item, sample in answers]
    failed: list[GraderFault] = []  # the first error, which stops the other threads

    def one(answer: Answer) -> float:
        if failed:
            raise failed[0]
        try:
            return _sound(_assess(grader, *answer, endpoint)).reward
        except GraderFault as fault:
            failed.append(fault)
            raise

    with Endpoint(settings, ATTEMPTS) as endpoint, ThreadPoolExecutor(settings.grader_concurrency) as pool:
        return list(pool.map(one, answers))


def assess(
    grader: Grader, *, item: Mapping[str, Any], sample: Mapping[str, Any], settings: GraderSettings | None = None
) -> Graded:
    """Like `grade`, but return errors in `faults`, with the grade 0.0.

    Raises GraderFault only if the settings do not allow the grader.
    """
    settings = settings or GraderSettings()
    require(grader, settings)
    if not _asks_a_model(grader):
        return _assess(grader, item, sample, None)
    with Endpoint(settings, ATTEMPTS_OF_ONE) as endpoint:
        return _assess(grader, item, sample, endpoint)


def require(grader: Grader, settings: GraderSettings) -> None:
    """Raise GraderFault, naming the setting, if the settings do not allow the grader or give it no endpoint."""
    for path, part in _parts(grader):
        if isinstance(part, Python) and not settings.python_graders:
            raise GraderFault(
                "Python graders are disabled. To run them in a sandbox, set LUTHIER_PYTHON_GRADERS=1 for the service "
                "and its workers.",
                param=f"{path}type",
            )
        if isinstance(part, ScoreModel | LabelModel) and settings.grader_base_url is None:
            raise GraderFault(
                f"No grader API is configured for the model {part.model!r}. Set LUTHIER_GRADER_BASE_URL (and "
                "LUTHIER_GRADER_API_KEY if the API needs a key) for the service and its workers.",
                param=f"{path}type",
            )


def check(grader: Grader, items: Iterable[Mapping[str, Any]] = (), settings: GraderSettings | None = None) -> None:
    """Validate the grader, and check that each of the rows fills its templates.

    Raises GraderFault whose `param` is the path of the field within the grader.
    """
    require(grader, settings or GraderSettings())
    if isinstance(grader, Multi):
        for name in grader.graders:
            if name in FUNCTIONS:
                raise GraderFault(
                    f"{name!r} is the name of a formula function. Give the grader another name.",
                    param=f"graders.{name}",
                )
        Formula(grader.calculate_output, grader.graders).check()
    for path, part in _parts(grader):
        for name, template in _templates(part):
            try:
                check_paths(template)
                for item in items:
                    _fill_if_answered(template, item)
            except GraderFault as fault:
                fault.param = path + name
                raise
        if isinstance(part, Python):
            try:
                python.load(part.source)
            except GraderFault as fault:
                fault.param = f"{path}{fault.param}"
                raise


def _assess(grader: Grader, item: Mapping[str, Any], sample: Mapping[str, Any], endpoint: Endpoint | None) -> Graded:
    if not isinstance(grader, Multi):
        return _attempt(grader, item, sample, endpoint)
    parts = {name: _attempt(part, item, sample, endpoint) for name, part in grader.graders.items()}
    rewards = {name: part.reward for name, part in parts.items()}
    faults = [
        GraderFault(f"graders.{name}: {fault.message}", kind=fault.kind)
        for name, part in parts.items()
        for fault in part.faults
    ]
    tokens: dict[str, int] = {}
    for part in parts.values():
        for model, used in part.tokens.items():
            tokens[model] = tokens.get(model, 0) + used
    try:
        reward = Formula(grader.calculate_output, rewards).value(rewards)
    except GraderFault as fault:
        reward = 0.0
        faults.append(fault)
    return Graded(reward=reward, sub_rewards=rewards, faults=tuple(faults), tokens=tokens)


def _attempt(
    grader: SingleGrader, item: Mapping[str, Any], sample: Mapping[str, Any], endpoint: Endpoint | None
) -> Graded:
    tokens: dict[str, int] = {}
    try:
        match grader:
            case Python():
                reward = python.run(grader.source, item=item, sample=sample)
            case ScoreModel() | LabelModel():
                assert endpoint is not None
                reply = llm_judge.ask(grader, endpoint, item=item, sample=sample)
                tokens = {grader.model: reply.tokens}
                reward = llm_judge.read(grader, reply)
            case StringCheck() | TextSimilarity() | Number() | Math():
                given = fill(grader.input, item=item, sample=sample)
                reward = _compare(grader, given, fill(grader.reference, item=item, sample=sample))
    except GraderFault as fault:
        return Graded(reward=0.0, faults=(fault,), tokens=tokens)
    return Graded(reward=reward, tokens=tokens)


def _sound(graded: Graded) -> Graded:
    for fault in graded.faults:
        if fault.kind in RAISED:
            raise fault
    return graded


def _compare(grader: StringCheck | TextSimilarity | Number | Math, given: str, reference: str) -> float:
    match grader:
        case StringCheck():
            return float(holds(grader, given, reference))
        case TextSimilarity():
            return similarity(grader.evaluation_metric, given, reference)
        case Number():
            number, expected = last_number(given), last_number(reference)
            if expected is None:
                raise GraderFault("the reference contains no number")
            return float(number is not None and close(number, expected, grader.tolerance))
        case Math():
            return float(equal(given, reference, grader.float_rounding))


def _parts(grader: Grader) -> Iterator[tuple[str, SingleGrader]]:
    """Yield the single graders, each with the path prefix of its fields."""
    if isinstance(grader, Multi):
        for name, part in grader.graders.items():
            yield f"graders.{name}.", part
    else:
        yield "", grader


def _asks_a_model(grader: Grader) -> bool:
    return any(isinstance(part, ScoreModel | LabelModel) for _, part in _parts(grader))


def _templates(grader: SingleGrader) -> Iterator[tuple[str, str]]:
    match grader:
        case Python():
            pass
        case ScoreModel() | LabelModel():
            for position, message in enumerate(grader.input):
                yield f"input.{position}.content", message.content
        case StringCheck() | TextSimilarity() | Number() | Math():
            yield "input", grader.input
            yield "reference", grader.reference


def _fill_if_answered(template: str, item: Mapping[str, Any]) -> None:
    try:
        fill(template, item=item, sample=sample_of(""))
    except GraderFault as fault:
        if fault.kind != "sample_parse_error":
            raise
