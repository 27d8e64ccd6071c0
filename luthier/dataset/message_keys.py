"""Keys of messages that no training uses: a note names them all, and a file is refused where one may be a flag."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from luthier.dataset.errors import columns
from luthier.dataset.rows import COLUMNS, Row
from luthier.task import DataKind

_USED: Final = frozenset({"role", "content", "tool_calls", "weight", "name", "tool_call_id", "id"})
_REASONING: Final = frozenset({"reasoning_content", "reasoning", "thinking"})  # of an assistant
_FLAG: Final = re.compile(r".*(train|loss|mask|learn|supervis|ignor|target|skip|exclu).*|(is_)?labels?|kto_tag", re.I)
_MOST: Final = 12


@dataclass
class _Key:
    """A key: how many messages have it, and of the first row and message with it where they are."""

    row: int
    place: str
    count: int = 0
    flags: set[Any] = field(default_factory=set)
    other: bool = False


class MessageKeys:
    """Counts the keys of the messages of normalised rows that no training uses."""

    def __init__(self, rows: Sequence[Row], kind: DataKind, chat: str = "messages") -> None:
        """`chat`: what the file calls the column of a chat."""
        self._keys: dict[str, _Key] = {}
        self._answers = 0
        for index, row in enumerate(rows):
            for place, message in _messages(row, kind, chat):
                self._answers += message["role"] == "assistant"
                if len(message) > 2:
                    self._add(index, place, message)

    def fault(self) -> tuple[int, str] | None:
        """Return the index of a row, and what is wrong with it, if a key may say which messages are trained on."""
        for name, key in self._keys.items():
            differ = len(key.flags) > 1 or (key.flags and key.count < self._answers)
            if _FLAG.fullmatch(name) and differ and not key.other:
                return key.row, (
                    f"field `{key.place}.{name}`: it is unclear whether it leaves messages out of training. Give those "
                    f"a `weight` of 0 (or a row for KTO a `kto_tag`), and leave `{name}` out"
                )
        return None

    def note(self) -> tuple[str, ...]:
        """Return the note that names the keys; nothing without any."""
        if not self._keys:
            return ()
        first = list(self._keys.items())[:_MOST]
        named = ", ".join(f"{columns([name])} ({key.count:,} messages)" for name, key in first)
        more = f" and {len(self._keys) - _MOST} more" if len(self._keys) > _MOST else ""
        return (
            f"No training uses these keys of messages, unless the chat template shows them: {named}{more}. What is to "
            "be learned belongs into `content`.",
        )

    def _add(self, index: int, place: str, message: Row) -> None:
        used = _USED | _REASONING if message["role"] == "assistant" else _USED
        for name, value in message.items():
            if name in used or value in (None, "", [], {}):
                continue
            key = self._keys.setdefault(name, _Key(row=index, place=place))
            key.count += 1
            if isinstance(value, bool | int | float) and value in (0, 1):
                key.flags.add(bool(value))
            else:
                key.other = True


def _messages(row: Row, kind: DataKind, chat: str) -> Iterator[tuple[str, Row]]:
    """Yield the messages of a normalised row, each with its place in the file."""
    for column in COLUMNS[kind]:
        said = row[column]
        for index, message in enumerate(said if isinstance(said, list) else ()):
            yield f"{chat if column == 'messages' else column}[{index}]", message
