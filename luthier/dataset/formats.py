"""The accepted row formats. A row's columns determine its format; rows are normalised to TRL's columns.

Other columns are kept unchanged: graders read them as `{{item.…}}`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from luthier.dataset import messages
from luthier.dataset.errors import columns, unexpected
from luthier.dataset.rows import Row
from luthier.errors import DatasetError
from luthier.task import DataKind


@dataclass(frozen=True, kw_only=True)
class Format:
    """A set of columns, and the function that normalises them. `optional` columns are used if present."""

    name: str
    kind: DataKind
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    convert: Callable[[Row], Row]

    def normalise(self, row: Row) -> Row:
        """Return the row in TRL's columns, followed by extra columns. Raises DatasetError naming the field at fault."""
        if missing := [column for column in self.required if column not in row]:
            raise DatasetError(
                f"columns {columns(row) or '(none)'}: expected {columns(missing)} too; the first row has the format "
                f"{self.name}, and all rows of a file must have the same one"
            )
        _refuse_media(row)
        normal = self.convert(row)
        taken = {*self.required, *self.optional, *normal}
        return normal | {column: value for column, value in row.items() if column not in taken}


def detect(row: Row) -> Format:
    """Return the format of a row. Raises DatasetError, naming the columns found, if no accepted format matches."""
    if _is_open(row):
        return _OPEN_MESSAGES
    formats = UNPAIRED if _is_unpaired(row) else FORMATS
    found = next((known for known in formats if row.keys() >= set(known.required)), None)
    if found is not None:
        return found
    raise DatasetError(f"columns {columns(row) or '(none)'}: no accepted format has these columns; {_accepted()}")


def plain_if_single_turn(rows: list[Row]) -> list[Row]:
    """Return Alpaca rows as plain strings if no row of the file has a system prompt or a history."""
    if any(len(row["prompt"]) > 1 for row in rows):
        return rows
    return [row | {column: row[column][0]["content"] for column in ("prompt", "completion")} for row in rows]


def check_shape(row: Row, first: Row, found: Format) -> None:
    """Raise DatasetError if the row's prompt is not of the type (string or messages) of the file's first row.

    Alpaca files are an exception: there a row without a history is a short chat.
    """
    if "prompt" in found.required and isinstance(row["prompt"], str) != isinstance(first["prompt"], str):
        raise DatasetError(
            f"field `prompt`: expected {_shape(first)} as in the first row, found {_shape(row)}; "
            "one file must use only one of the two"
        )


def _shape(row: Row) -> str:
    return "a string" if isinstance(row["prompt"], str) else "a list of messages"


def _text(row: Row) -> Row:
    return {"text": _string(row, "text")}


def _pairs(row: Row) -> Row:
    return _answered(row["prompt"], {"completion": row["completion"]}) | _tools(row)


def _prompt(row: Row) -> Row:
    prompt = row["prompt"]
    asked = messages.prompt(prompt, "prompt") if isinstance(prompt, list) else _string(row, "prompt")
    return {"prompt": asked} | _tools(row)


def _open_messages(row: Row) -> Row:
    return {"prompt": messages.prompt(row["messages"], "messages")} | _tools(row)


def _preference(row: Row) -> Row:
    return _different(_answered(row["prompt"], {"chosen": row["chosen"], "rejected": row["rejected"]}) | _tools(row))


def _implicit_preference(row: Row) -> Row:
    """TRL's preference format without a prompt: the messages that both answers start with are the prompt."""
    for field in ("chosen", "rejected"):
        if not isinstance(row[field], list):
            raise unexpected(field, "a list of messages that starts with the prompt (or a `prompt` column)", row[field])
    chosen, rejected = messages.messages(row["chosen"], "chosen"), messages.messages(row["rejected"], "rejected")
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    if same == len(chosen) == len(rejected):
        raise DatasetError("fields `chosen` and `rejected`: expected two different answers, found the same one twice")
    if same == 0:
        raise DatasetError("fields `chosen` and `rejected`: expected the same prompt at the start of both, found none")
    return _answered(chosen[:same], {"chosen": chosen[same:], "rejected": rejected[same:]}) | _tools(row)


def _openai_preference(row: Row) -> Row:
    given = row["input"]
    if not isinstance(given, dict):
        raise unexpected("input", "an object with `messages`", given)
    prompt = messages.prompt(given.get("messages"), "input.messages")
    answers = {
        "chosen": messages.answer(row["preferred_output"], "preferred_output"),
        "rejected": messages.answer(row["non_preferred_output"], "non_preferred_output"),
    }
    return _different({"prompt": prompt, **answers} | _tools(given, "input.tools"))


def _chat(row: Row) -> Row:
    return {"messages": messages.conversation(row["messages"], "messages")} | _tools(row)


def _sharegpt(row: Row) -> Row:
    turns = _turns(row["conversations"], "conversations")
    return {"messages": messages.conversation(_system(row) + turns, "conversations")} | _tools(row)


def _sharegpt_preference(row: Row) -> Row:
    prompt = messages.prompt(_system(row) + _turns(row["conversations"], "conversations"), "conversations")
    answers = {
        field: messages.answer(_turns(row[field] if isinstance(row[field], list) else [row[field]], field), field)
        for field in ("chosen", "rejected")
    }
    return _different({"prompt": prompt, **answers} | _tools(row))


def _last_turn_apart(row: Row) -> Row:
    """Split a conversation into a prompt and its last message, which the label is about."""
    *prompt, said = row["messages"]
    if not prompt:
        raise DatasetError("field `messages`: expected a prompt before the answer, found only an answer")
    return {"prompt": messages.prompt(prompt, "messages"), "completion": [said]} | _tools(row)


def _judged_chat(row: Row) -> Row:
    return _last_turn_apart(_chat(row))


def _judged_sharegpt(row: Row) -> Row:
    return _last_turn_apart(_sharegpt(row))


def _judged(convert: Callable[[Row], Row], column: str) -> Callable[[Row], Row]:
    """Return `convert` with the label in `column` added to its rows."""
    return lambda row: convert(row) | {"label": _verdict(row[column], column)}


def _verdict(value: Any, field: str) -> bool:
    """Return a label as a boolean; CSV files have it as a word."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _VERDICTS:
        return _VERDICTS[value.strip().lower()]
    raise unexpected(field, "true (desirable) or false (undesirable)", value)


def _alpaca(row: Row) -> Row:
    instruction, given = _string(row, "instruction"), _optional_string(row, "input")
    asked = {"role": "user", "content": f"{instruction}\n\n{given}" if given else instruction}
    answered = {"role": "assistant", "content": _string(row, "output")}
    return {"prompt": [*_system(row), *_history(row), asked], "completion": [answered]} | _tools(row)


_TEXT: Final = Format(name="text", kind=DataKind.TEXT, required=("text",), convert=_text)

ALPACA: Final = Format(
    name="alpaca",
    kind=DataKind.PAIRS,
    required=("instruction", "output"),
    optional=("input", "system", "history", "tools"),
    convert=_alpaca,
)

FORMATS: Final = (  # the first one whose columns are all present applies, so more specific ones come first
    Format(
        name="openai_preference",
        kind=DataKind.PREFERENCE,
        required=("input", "preferred_output", "non_preferred_output"),
        convert=_openai_preference,
    ),
    Format(
        name="sharegpt_preference",
        kind=DataKind.PREFERENCE,
        required=("conversations", "chosen", "rejected"),
        optional=("system", "tools"),
        convert=_sharegpt_preference,
    ),
    Format(
        name="preference",
        kind=DataKind.PREFERENCE,
        required=("prompt", "chosen", "rejected"),
        optional=("tools",),
        convert=_preference,
    ),
    Format(
        name="implicit_preference",
        kind=DataKind.PREFERENCE,
        required=("chosen", "rejected"),
        optional=("tools",),
        convert=_implicit_preference,
    ),
    Format(name="messages", kind=DataKind.CHAT, required=("messages",), optional=("tools",), convert=_chat),
    Format(
        name="sharegpt",
        kind=DataKind.CHAT,
        required=("conversations",),
        optional=("system", "tools"),
        convert=_sharegpt,
    ),
    ALPACA,
    Format(
        name="prompt_completion",
        kind=DataKind.PAIRS,
        required=("prompt", "completion"),
        optional=("tools",),
        convert=_pairs,
    ),
    Format(name="prompt", kind=DataKind.PROMPTS, required=("prompt",), optional=("tools",), convert=_prompt),
    _TEXT,
)

_OPEN_MESSAGES: Final = Format(
    name="open_messages",
    kind=DataKind.PROMPTS,
    required=("messages",),
    optional=("tools",),
    convert=_open_messages,
)

_VERDICTS: Final = {"true": True, "false": False}
_VERDICT_COLUMNS: Final = ("label", "kto_tag")  # TRL's and LLaMA-Factory's
_JUDGED: Final = (
    Format(
        name="unpaired",
        kind=DataKind.UNPAIRED,
        required=("prompt", "completion"),
        optional=("tools",),
        convert=_pairs,
    ),
    Format(
        name="unpaired_messages",
        kind=DataKind.UNPAIRED,
        required=("messages",),
        optional=("tools",),
        convert=_judged_chat,
    ),
    Format(
        name="unpaired_sharegpt",
        kind=DataKind.UNPAIRED,
        required=("conversations",),
        optional=("system", "tools"),
        convert=_judged_sharegpt,
    ),
    Format(
        name="unpaired_alpaca",
        kind=DataKind.UNPAIRED,
        required=("instruction", "output"),
        optional=("input", "system", "history"),
        convert=_alpaca,
    ),
)

UNPAIRED: Final = tuple(  # every format of an answer, with the label in one of two columns
    replace(known, required=(*known.required, column), convert=_judged(known.convert, column))
    for known in _JUDGED
    for column in _VERDICT_COLUMNS
)
ALPACAS: Final = (ALPACA, *(known for known in UNPAIRED if known.name == "unpaired_alpaca"))

_SHAREGPT_ROLES: Final = {"system": "system", "human": "user", "gpt": "assistant", "observation": "tool"}
_MEDIA: Final = ("images", "videos", "audios")


def _answered(prompt: Any, answers: Row) -> Row:
    """Return prompt and answers as strings if all of them are strings, else all as messages."""
    if not any(isinstance(value, list) for value in (prompt, *answers.values())):
        given = {"prompt": prompt, **answers}
        return {field: _string(given, field) for field in given}
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": _string({"prompt": prompt}, "prompt")}]
    as_messages: Row = {"prompt": messages.prompt(prompt, "prompt")}
    for field, value in answers.items():
        said = [{"role": "assistant", "content": _string(answers, field)}] if isinstance(value, str) else value
        as_messages[field] = messages.answer(said, field)
    return as_messages


def _different(row: Row) -> Row:
    if row["chosen"] == row["rejected"]:
        raise DatasetError("fields `chosen` and `rejected`: expected two different answers, found the same one twice")
    return row


def _tools(row: Row, field: str = "tools") -> Row:
    found = messages.tools(row.get("tools"), field)
    return {"tools": found} if found else {}


def _turns(value: Any, field: str) -> list[Row]:
    """Return ShareGPT's `{from, value}` turns as messages; turns that have a `role` already are unchanged."""
    if not isinstance(value, list) or not value:
        raise unexpected(field, "a list of turns", value)
    return [_turn(turn, f"{field}[{index}]") for index, turn in enumerate(value)]


def _turn(turn: Any, field: str) -> Row:
    if not isinstance(turn, dict):
        raise unexpected(field, "an object with `from` and `value`", turn)
    if "role" in turn:
        return turn
    speaker, value = turn.get("from"), turn.get("value")
    if not isinstance(value, str):
        raise unexpected(f"{field}.value", "a string", value)
    rest = {key: item for key, item in turn.items() if key not in ("from", "value")}
    if speaker == "function_call":
        return {"role": "assistant", "content": "", "tool_calls": _called(value, f"{field}.value")} | rest
    if not isinstance(speaker, str) or speaker not in _SHAREGPT_ROLES:
        raise unexpected(f"{field}.from", f"one of {', '.join(_SHAREGPT_ROLES)}, function_call", speaker)
    return {"role": _SHAREGPT_ROLES[speaker], "content": value} | rest


def _called(value: str, field: str) -> list[Row]:
    calls = messages.parsed(value, field, 'a call as JSON, {"name": …, "arguments": {…}}')
    return [messages.tool_call(call, field) for call in (calls if isinstance(calls, list) else [calls])]


def _system(row: Row) -> list[Row]:
    text = _optional_string(row, "system")
    return [{"role": "system", "content": text}] if text else []


def _history(row: Row) -> list[Row]:
    """Return Alpaca's earlier rounds, `[[question, answer], …]`, as messages."""
    rounds = row.get("history") or []
    if not isinstance(rounds, list):
        raise unexpected("history", "a list of [question, answer]", rounds)
    found: list[Row] = []
    for index, pair in enumerate(rounds):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(said, str) for said in pair):
            raise unexpected(f"history[{index}]", "[question, answer], both strings", pair)
        found += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return found


def _string(row: Row, field: str) -> str:
    value = row[field]
    if not isinstance(value, str) or not value.strip():
        raise unexpected(field, "a non-empty string", value)
    return value


def _optional_string(row: Row, field: str) -> str:
    value = row.get(field)
    if value is not None and not isinstance(value, str):
        raise unexpected(field, "a string or nothing", value)
    return value or ""


def _refuse_media(row: Row) -> None:
    for column in _MEDIA:
        if row.get(column):
            raise DatasetError(f"field `{column}`: images, video and audio are not supported; remove the column")


def _is_open(row: Row) -> bool:
    """Return whether the messages end before an answer, as in OpenAI's files for reinforcement fine-tuning."""
    said = row.get("messages")
    return (
        isinstance(said, list)
        and bool(said)
        and all(isinstance(message, dict) and message.get("role") in messages.ROLES for message in said)
        and said[-1]["role"] != "assistant"
    )


def _is_unpaired(row: Row) -> bool:
    """Return whether the row has an answer with a KTO label: a `kto_tag`, or a `label` of true or false."""
    is_verdict = "kto_tag" in row or str(row.get("label")).strip().lower() in _VERDICTS
    return is_verdict and bool({"completion", "messages", "conversations", "output"} & row.keys())


def _accepted() -> str:
    sets = "; ".join(" + ".join(f"`{column}`" for column in known.required) for known in (*FORMATS, *UNPAIRED))
    return f"accepted columns: {sets}"
