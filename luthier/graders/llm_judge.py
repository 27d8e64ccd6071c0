"""Asking a model for a grade, and reading it: OpenAI's `score_model` and `label_model`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from luthier.errors import GraderFault
from luthier.graders.endpoint import Endpoint, Reply
from luthier.graders.templates import fill
from luthier.task import LabelModel, ScoreModel

MAX_CHARACTERS: Final = 50_000  # of a model's answer, from its end
SHOWN_CHARACTERS: Final = 200


def ask(
    grader: ScoreModel | LabelModel, endpoint: Endpoint, *, item: Mapping[str, Any], sample: Mapping[str, Any]
) -> Reply:
    """Put the grader's question. Raises GraderFault where a template cannot be filled or nobody answers."""
    messages = [
        {
            "role": "system" if message.role == "developer" else message.role,
            "content": fill(message.content, item=item, sample=sample),
        }
        for message in grader.input
    ]
    # How to answer is said in words as well: not every server can hold a model to a schema. It stands in the user's
    # last turn, as templates of many models know no system turn there.
    if messages[-1]["role"] == "user":
        messages[-1]["content"] += f"\n\n{_instruction(grader)}"
    else:
        messages.append({"role": "user", "content": _instruction(grader)})
    return endpoint.chat({"model": grader.model, "messages": messages, **_sampling(grader)}, _schema(grader))


def read(grader: ScoreModel | LabelModel, reply: Reply) -> float:
    """The grade in a reply: JSON with a `result`, alone or at the end of a text, or the bare result.

    A score outside of the range counts as the nearest one inside. Raises GraderFault where there is no grade.
    """
    if reply.refusal is not None:
        raise GraderFault(
            f"{grader.model} refused to grade: {reply.refusal[:SHOWN_CHARACTERS]}", kind="model_grader_refusal_error"
        )
    result = _result(reply.text[-MAX_CHARACTERS:])
    match grader:
        case ScoreModel(range=(low, high)):
            score = _number(result)
            if score is None:
                raise _unreadable(grader, reply, f"a number from {low:g} to {high:g}")
            return min(high, max(low, score))
        case LabelModel():
            if result not in grader.labels:
                raise _unreadable(grader, reply, f"one of {', '.join(grader.labels)}")
            return float(result in grader.passing_labels)


def _instruction(grader: ScoreModel | LabelModel) -> str:
    match grader:
        case ScoreModel(range=(low, high)):
            result = f"a number from {low:g} to {high:g}"
        case LabelModel():
            result = "one of " + ", ".join(json.dumps(label, ensure_ascii=False) for label in grader.labels)
    return f'Answer with a JSON object {{"reasoning": why, in a few words, "result": {result}}} and nothing else.'


def _schema(grader: ScoreModel | LabelModel) -> dict[str, Any]:
    match grader:
        case ScoreModel():
            result: dict[str, Any] = {"type": "number"}
        case LabelModel():
            result = {"type": "string", "enum": list(grader.labels)}
    return {
        "type": "object",
        "properties": {"reasoning": {"type": "string"}, "result": result},
        "required": ["reasoning", "result"],
        "additionalProperties": False,
    }


def _sampling(grader: ScoreModel | LabelModel) -> dict[str, Any]:
    match grader:
        case ScoreModel(sampling_params=params) if params is not None:
            given = params.model_dump(exclude_none=True)
            names = {"max_completions_tokens": "max_completion_tokens"}  # a grader's name for it, and a chat's
            return {names.get(name, name): value for name, value in given.items()}
        case _:
            return {}


def _result(text: str) -> Any:
    """The `result` of the last object in a text that has one; of a text without, the text."""
    decoder, found = json.JSONDecoder(), text.strip()
    start = text.find("{")
    while start >= 0:
        end = start + 1
        try:
            value, stop = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            pass
        else:
            if "result" in value:
                found, end = value["result"], stop
        start = text.find("{", end)
    return found


def _number(result: Any) -> float | None:
    try:
        score = math.nan if isinstance(result, bool) else float(result)
    except (ValueError, TypeError, OverflowError):
        return None
    return score if math.isfinite(score) else None


def _unreadable(grader: ScoreModel | LabelModel, reply: Reply, expected: str) -> GraderFault:
    why = " (its answer was cut off at the limit of tokens)" if reply.cut else ""
    return GraderFault(
        f"{grader.model} did not answer with {expected}{why}: {reply.text[:SHOWN_CHARACTERS]!r}",
        kind="model_grader_parse_error",
    )
