"""Choices that have a column each, such as `option_a` to `option_d`: a question without them cannot be answered."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from luthier.dataset.labels import missing
from luthier.dataset.rows import Row

_MEMBER: Final = re.compile(r"(.*?)[\W_]*([a-j]|\d)", re.IGNORECASE)
_STEMS: Final = frozenset(
    {
        *("op", "opt", "option", "options", "choice", "choices", "ans", "ending", "alternative"),
        *("distractor", "distractors", "wronganswer", "incorrectanswer"),
    }
)
_MARKS: Final = re.compile(r"[\W_]+")


def choice_columns(raw: Sequence[Row], normal: Sequence[Row], unused: Sequence[str]) -> list[str]:
    """Return the unused columns that are choices: several of one stem, with a letter or a number each.

    The stem is a usual one, or most answers are the letter, the number or the name of one of the columns.
    """
    families: defaultdict[str, list[str]] = defaultdict(list)
    for column in unused:
        if member := _MEMBER.fullmatch(column.strip()):
            families[_MARKS.sub("", member[1]).lower()].append(column)
    found = []
    for stem, names in families.items():
        texts = [row[name] for row in raw for name in names if not missing(row.get(name))]
        if len(names) < 2 or not texts or not all(isinstance(text, str | int | float) for text in texts):
            continue
        if stem in _STEMS or _are_answers(normal, names):
            found += names
    return found


def _are_answers(rows: Sequence[Row], names: Sequence[str]) -> bool:
    """Return whether most answers are a suffix or the name of one of these columns."""
    members = [member for name in names if (member := _MEMBER.fullmatch(name.strip()))]
    known = {member[2].lower() for member in members} | {_MARKS.sub("", name).lower() for name in names}
    return 2 * sum(_answer(row) in known for row in rows) >= len(rows)


def _answer(row: Row) -> str:
    """Return the letters and digits of an answer of text; empty for any other."""
    said = row.get("completion")
    if isinstance(said, list):
        said = said[-1]["content"]
    return _MARKS.sub("", said).lower() if isinstance(said, str) else ""
