"""What columns may mean that training does not use: answers, ratings, weights and earlier rounds.

Such a column is a mistake of its name more often than not. So a note says what becomes of it, and what to call it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from luthier.dataset.errors import columns
from luthier.dataset.formats import CHATS, HISTORY, Format
from luthier.dataset.labels import COLUMNS as LABELS
from luthier.dataset.labels import missing
from luthier.dataset.rows import Row
from luthier.task import DataKind

_ANSWERS: Final = re.compile(
    r"(answer|output|target|solution|response|completion|reply|replies|summary|summaries|highlight|chosen|rejected|label)"
    r"s?([\W_].*)?|text",
    re.IGNORECASE,
)
_OF_TEXT: Final = ("completion", "response", "output", "answer", "target", "summary", "highlights")
_REJECTED: Final = re.compile(r"(chosen|rejected|preferred|non_preferred)(_.*)?", re.IGNORECASE)
_RATINGS: Final = re.compile(
    r"(.*_)?(rating|score|reward|feedback|thumbs?|thumbs_up|vote|verdict|quality|desirable|is_good|is_correct|correct)s?",
    re.IGNORECASE,
)
_WEIGHTS: Final = ("weight", "weights", "sample_weight", "loss", "loss_scale", "train")


def fault(rows: Sequence[Row], format_: Format, unused: Sequence[str]) -> str | None:
    """Return what is wrong if plain text would be trained on without the answers beside it; else None.

    A text that contains its answer, as a whole example does, is complete.
    """
    if format_.kind is not DataKind.TEXT or any(column in unused for column in ("question", "instruction", "query")):
        return None
    for name in _OF_TEXT:
        for column in (column for column in unused if column.strip().lower() == name):
            given = [row for row in rows if isinstance(row.get(column), str) and row[column].strip()]
            apart = [row for row in given if row[column].strip() not in str(row.get("text"))]
            if 2 * len(apart) >= len(rows):
                return (
                    f"columns `text`, {columns([column])}: the file would be read as plain text, without its answers. "
                    f"To learn {columns([column])} from `text`, call them `completion` and `prompt`; to train on the "
                    f"texts alone, leave {columns([column])} out"
                )
    return None


def notes(rows: Sequence[Row], format_: Format, unused: Sequence[str]) -> Iterator[str]:
    """Yield what becomes of columns that are not used, as sentences."""
    used = [column for column in unused if any(not missing(row.get(column)) for row in rows)]
    kind = format_.kind
    if kind is DataKind.PROMPTS and (answers := [name for name in used if _ANSWERS.fullmatch(name)]):
        yield (
            f"The rows are prompts for reinforcement learning, and only graders see {columns(answers)}. To train on "
            "such a column, call it `completion`."
        )
    if format_.name == "open_messages":
        yield (
            f"The rows are prompts for reinforcement learning, because the last message is {_last_speakers(rows)}. To "
            "train on the assistant's messages, end each chat with one."
        )
    if kind in (DataKind.PAIRS, DataKind.CHAT):
        if found := [name for name in used if _REJECTED.fullmatch(name)]:
            yield (
                f"{columns(found)} are not used. Preferences have the columns `prompt`, `chosen` and `rejected`, or "
                "`rejected_response` beside a chat."
            )
        if found := [name for name in used if _RATINGS.fullmatch(name) and name not in LABELS]:
            yield (
                f"All answers are trained on, whatever {columns(found)} says. To learn from good and bad answers "
                "(KTO), give true and false in the column `kto_tag`."
            )
    if kind is DataKind.TEXT and (found := [name for name in used if name in LABELS]):
        yield f"The rows are plain text, and no training learns {columns(found)}. To learn it, call it `completion`."
    if kind not in (DataKind.TEXT, DataKind.PROMPTS) and (found := [name for name in used if name.lower() in _WEIGHTS]):
        yield f"All rows count alike, whatever {columns(found)} says. A `weight` of 0 belongs to a message of a chat."
    if HISTORY in used and kind is not DataKind.TEXT:
        where = "it stands beside a whole chat" if set(CHATS) & set(format_.required) else "it has no rounds of a chat"
        yield f"The column `{HISTORY}` is not used, because {where}. Rounds are `[[question, answer], …]`."


def _last_speakers(rows: Sequence[Row]) -> str:
    """Return whose the last messages of the chats are, such as "`user`" or "`tool` or `user`"."""
    ends: list[Any] = [row["messages"][-1] for row in rows if isinstance(row.get("messages"), list) and row["messages"]]
    return " or ".join(sorted({f"`{end['role']}`" for end in ends if isinstance(end, dict) and "role" in end}))
