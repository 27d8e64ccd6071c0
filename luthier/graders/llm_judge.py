"""Ask a model for a grade and parse it: OpenAI's `score_model` and `label_model`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from luthier.errors import GraderFault
from luthier.graders.endpoint import Endpoint, Reply
from luthier.graders.templates import fill
from luthier.task import LabelModel, ScoreModel

MAX_CHARACTERS: Final = 50_000  # that are read of a model's answer, from its end
SHOWN_CHARACTERS: Final = 200


def ask(
    grader: ScoreModel | LabelModel, endpoint: Endpoint, *, item: Mapping[str, Any], sample: Mapping[str, Any]
) -> Reply:
    """Send the grader's messages. Raises GraderFault if a template cannot be filled or the endpoint does not answer."""
    messages = [
        {
            "role": "system" if message.role == "developer" else message.role,
            "content": fill(message.content, item=item, sample=sample),
        }
        for message in grader.input
    ]
    # The instruction repeats the schema in words, because not every server supports structured output. It goes into
    # the last user turn, because many chat templates allow no system turn there.
    if messages[-1]["role"] == "user":
        messages[-1]["content"] += f"\n\n{_instruction(grader)}"
    else:
        messages.append({"role": "user", "content": _instruction(grader)})
    return endpoint.chat({"model": grader.model, "messages": messages, **_sampling(grader)}, _schema(grader))


def read(grader: ScoreModel | LabelModel, reply: Reply) -> float:
    """Return the grade in a reply: JSON with a `result`, alone or inside a text, or the bare result.

    A score outside the range is clipped. Raises GraderFault if there is no grade.
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
            names = {"max_completions_tokens": "max_completion_tokens"}  # OpenAI's names in graders and in chat
            return {names.get(name, name): value for name, value in given.items()}
        case _:
            return {}


def _result(text: str) -> Any:
    """Return the `result` of the last JSON object that has one, else the text itself."""
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
    why = " (its answer was truncated at the limit of tokens)" if reply.cut else ""
    return GraderFault(
        f"{grader.model} did not answer with {expected}{why}: {reply.text[:SHOWN_CHARACTERS]!r}",
        kind="model_grader_parse_error",
    )
