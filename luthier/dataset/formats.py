"""The accepted row formats. A file's columns determine its format; rows are normalised to TRL's columns.

Other columns are kept unchanged: graders read them as `{{item.…}}`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Final

from luthier.dataset import media, messages, question_parts, sharegpt
from luthier.dataset.answers import (
    answered,
    as_chat,
    check_json,
    history,
    joined,
    optional_string,
    string,
    with_history,
    with_system,
)
from luthier.dataset.errors import columns, unexpected
from luthier.dataset.labels import COLUMNS as LABEL_COLUMNS
from luthier.dataset.labels import label
from luthier.dataset.preferences import (
    chat_preference,
    implicit_preference,
    openai_preference,
    preference,
    sharegpt_preference,
    two_chats,
)
from luthier.dataset.rows import COLUMNS, Row, blank
from luthier.dataset.tool_calls import hoisted, row_tools
from luthier.errors import DatasetError
from luthier.task import DataKind

SYSTEM: Final = (
    "system",
    "system_prompt",
    "system_message",
    "system_msg",
    "system_content",
    "system_text",
    "system_instruction",
    "system_instructions",
    "sys",
    "sys_prompt",
)
HISTORY: Final = "history"
CHATS: Final = ("messages", "conversations")  # columns of whole chats


@dataclass(frozen=True, kw_only=True)
class Format:
    """A set of columns, and the function that normalises them.

    `optional` columns are used if present. Each format but `text` also uses the columns for tools and for a system
    prompt. `asked` is the column of a prompt that a passage and choices may stand beside. `kept` columns are used, and
    stay in the row under their own name too, because graders refer to it. `begun`: a column of earlier rounds may stand
    beside the prompt.
    """

    name: str
    kind: DataKind
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    asked: str | None = None
    kept: tuple[str, ...] = ()
    begun: bool = False
    convert: Callable[[Row], Row]

    @property
    def used(self) -> frozenset[str]:
        """The columns that training uses, if they are present; what stands beside a question is in the reading."""
        beside = () if self.kind is DataKind.TEXT else (*SYSTEM, "tools", "functions")
        return frozenset((*self.required, *self.optional, *beside))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the rows of one file are read: their format, and what all of its rows have in common.

    `chat`: strings become messages in all rows, because some row has a system prompt or a history.
    `system`: the columns of system prompts. `history`: earlier rounds are put before the prompt. `beside`: the columns
    that are put into the prompt; all but `context` stay in the row too, for graders.
    """

    format: Format
    chat: bool = False
    system: tuple[str, ...] = ()
    history: bool = False
    beside: tuple[str, ...] = ()

    @cached_property
    def used(self) -> frozenset[str]:
        """The columns that training uses."""
        return self.format.used | set(self.beside) | ({HISTORY} if self.history else set())

    @cached_property
    def _taken(self) -> frozenset[str]:
        """The columns that do not stay in a row under their own name."""
        return self.used - set(self.format.kept) - (set(self.beside) - {question_parts.CONTEXT})

    def normalise(self, row: Row) -> Row:
        """Return the row in TRL's columns, followed by extra columns. Raises DatasetError naming the field at fault."""
        if missing := [column for column in self.format.required if column not in row]:
            raise DatasetError(
                f"columns {columns(row) or '(none)'}: expected {columns(missing)} too; the file has the format "
                f"{self.format.name}, and all rows of a file must have the same one"
            )
        for column in media.MEDIA:
            if media.given(row.get(column)):
                raise DatasetError(f"field `{column}`: images, video and audio are not supported; remove the column")
        asked = self.format.asked
        given = question_parts.with_parts(row, asked, self.beside) if asked and self.beside else row
        if self.format.kind is not DataKind.TEXT:
            check_json(row, self.format.required)
        normal = self.format.convert(given)
        if self.format.kind is not DataKind.TEXT:
            normal = with_history(normal, history(row.get(HISTORY))) if self.history else normal
            normal = as_chat(normal) if self.chat else normal
            normal = with_system(normal, _system(row, self.system))
            found = normal.get("tools") or row_tools(row)
            normal = hoisted(normal | ({"tools": found} if found else {}))
        return normal | {
            column: value for column, value in row.items() if column not in self._taken and column not in normal
        }


def _system(row: Row, columns_: Sequence[str]) -> str:
    """Return the system prompt of a row. Raises DatasetError if two columns have different ones."""
    given = {column: text for column in columns_ if (text := optional_string(row, column)).strip()}
    if len({text.strip() for text in given.values()}) > 1:
        raise DatasetError(f"fields {columns(given)}: expected only one system prompt, found two that differ")
    return next(iter(given.values()), "")


def check_shape(row: Row, first: Row, kind: DataKind) -> None:
    """Raise DatasetError if the row's prompt is not of the type (string or messages) of the file's first row."""
    if "prompt" in COLUMNS[kind] and isinstance(row["prompt"], str) != isinstance(first["prompt"], str):
        raise DatasetError(
            f"field `prompt`: expected {_shape(first)} as in the first row, found {_shape(row)}; "
            "one file must use only one of the two"
        )


def labelled(found: Format, column: str) -> Format:
    """Return a format of pairs or chats with a KTO label in `column`. In a chat, it is about the last message."""
    name = "unpaired" if found.name == "prompt_completion" else f"unpaired_{found.name}"

    def convert(row: Row) -> Row:
        normal = found.convert(row)
        normal = _split_last_turn(normal, found.required[0]) if found.kind is DataKind.CHAT else normal
        return normal | {"label": label(row[column], column)}

    return replace(found, name=name, kind=DataKind.UNPAIRED, required=(*found.required, column), convert=convert)


def accepted() -> str:
    """Return the accepted sets of columns, for an error message."""
    sets = "; ".join(dict.fromkeys(" + ".join(f"`{column}`" for column in known.required) for known in FORMATS))
    labels = " or ".join(f"`{column}`" for column in LABEL_COLUMNS)
    return f"accepted columns: {sets}; pairs and chats also with {labels}"


def _shape(row: Row) -> str:
    return "a string" if isinstance(row["prompt"], str) else "a list of messages"


def _pair(row: Row, asked: str, answer: str) -> Row:
    return answered(row, asked, {"completion": answer})


def _prompt(row: Row) -> Row:
    prompt = row["prompt"]
    if isinstance(prompt, list):
        return {"prompt": messages.prompt(sharegpt.as_messages(prompt, "prompt"), "prompt")}
    return {"prompt": string(row, "prompt")}


def _open_chat(row: Row) -> Row:
    return {"prompt": messages.prompt(sharegpt.as_messages(row["messages"], "messages"), "messages")}


def _chat(row: Row) -> Row:
    return {"messages": messages.conversation(sharegpt.as_messages(row["messages"], "messages"), "messages")}


def _sharegpt(row: Row) -> Row:
    turns = sharegpt.turns(row["conversations"], "conversations")
    return {"messages": messages.conversation(turns, "conversations")}


def _alpaca(row: Row, answer: str) -> Row:
    return answered(_with_input(row), "instruction", {"completion": answer})


def _alpaca_preference(row: Row) -> Row:
    return preference(_with_input(row), "instruction")


def _with_input(row: Row) -> Row:
    """Return the row with Alpaca's `input` after its instruction."""
    instruction, given = string(row, "instruction"), joined(row, "input")
    return row | {"instruction": instruction if blank(given) else f"{instruction}\n\n{given}"}


def _text(row: Row) -> Row:
    return {"text": string(row, "text")}


def _split_last_turn(row: Row, field: str) -> Row:
    """Split a conversation into a prompt and its last message, which the label is about."""
    *prompt, said = row["messages"]
    if not prompt:
        raise DatasetError(f"field `{field}`: expected a prompt before the answer, found only an answer")
    if said.get("weight") == 0:
        raise unexpected(f"{field}[{len(prompt)}].weight", "no weight of 0 on the message that the label is about", 0)
    return {"prompt": messages.prompt(prompt, field), "completion": [said]}


def _pairs(asked: str, answer: str) -> Format:
    return Format(
        name=f"{asked}_{answer}",
        kind=DataKind.PAIRS,
        required=(asked, answer),
        asked=asked,
        kept=() if answer == "completion" else (answer,),
        begun=True,
        convert=partial(_pair, asked=asked, answer=answer),
    )


def _preferences(asked: str) -> Format:
    return Format(
        name="preference" if asked == "prompt" else f"{asked}_preference",
        kind=DataKind.PREFERENCE,
        required=(asked, "chosen", "rejected"),
        asked=asked,
        begun=True,
        convert=partial(preference, asked=asked),
    )


def _rejected_responses(asked: str) -> Format:
    """ms-swift's preferences: a pair, and the rejected answer in a third column."""
    return Format(
        name=f"{asked}_rejected_response",
        kind=DataKind.PREFERENCE,
        required=(asked, "response", "rejected_response"),
        asked=asked,
        begun=True,
        convert=partial(preference, asked=asked, chosen="response", rejected="rejected_response"),
    )


FORMATS: Final = (  # more specific ones come first, and files that several formats fit have the first of these
    Format(
        name="openai_preference",
        kind=DataKind.PREFERENCE,
        required=("input", "preferred_output", "non_preferred_output"),
        convert=openai_preference,
    ),
    Format(
        name="sharegpt_preference",
        kind=DataKind.PREFERENCE,
        required=("conversations", "chosen", "rejected"),
        convert=sharegpt_preference,
    ),
    _preferences("prompt"),
    Format(
        name="alpaca_preference",
        kind=DataKind.PREFERENCE,
        required=("instruction", "chosen", "rejected"),
        optional=("input",),
        asked="instruction",
        begun=True,
        convert=_alpaca_preference,
    ),
    _preferences("question"),
    _preferences("query"),
    _preferences("input"),
    Format(
        name="implicit_preference",
        kind=DataKind.PREFERENCE,
        required=("chosen", "rejected"),
        convert=implicit_preference,
    ),
    Format(
        name="messages_rejected_response",
        kind=DataKind.PREFERENCE,
        required=("messages", "rejected_response"),
        convert=chat_preference,
    ),
    Format(
        name="messages_rejected_messages",
        kind=DataKind.PREFERENCE,
        required=("messages", "rejected_messages"),
        convert=two_chats,
    ),
    *(_rejected_responses(asked) for asked in ("prompt", "query", "question")),
    Format(name="messages", kind=DataKind.CHAT, required=("messages",), convert=_chat),
    Format(name="open_messages", kind=DataKind.PROMPTS, required=("messages",), convert=_open_chat),
    Format(name="sharegpt", kind=DataKind.CHAT, required=("conversations",), convert=_sharegpt),
    Format(
        name="alpaca",
        kind=DataKind.PAIRS,
        required=("instruction", "output"),
        optional=("input", HISTORY),
        asked="instruction",
        begun=True,
        convert=partial(_alpaca, answer="output"),
    ),
    _pairs("prompt", "completion"),
    _pairs("prompt", "response"),
    Format(name="prompt", kind=DataKind.PROMPTS, required=("prompt",), begun=True, convert=_prompt),
    Format(name="text", kind=DataKind.TEXT, required=("text",), convert=_text),
    Format(
        name="instruction_response",
        kind=DataKind.PAIRS,
        required=("instruction", "response"),
        optional=("input", HISTORY),
        asked="instruction",
        begun=True,
        kept=("response",),
        convert=partial(_alpaca, answer="response"),
    ),
    *(_pairs(asked, answer) for asked in ("question", "query") for answer in ("answer", "response")),
    _pairs("input", "output"),
)


def is_open(value: Any) -> bool:
    """Return whether messages end before an answer, as in OpenAI's files for reinforcement fine-tuning."""
    return (
        isinstance(value, list)
        and bool(value)
        and not (isinstance(value[-1], dict) and value[-1].get("role") == "assistant")
        and all(isinstance(message, dict) and message.get("role") in messages.ROLES for message in value)
    )
