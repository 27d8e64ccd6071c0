"""Labels of unpaired preference data (KTO): which words mean desirable, and whether a column has such labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from luthier.dataset.errors import shorten, unexpected
from luthier.dataset.rows import Row

DESIRABLE: Final = frozenset(
    {
        "true",
        "t",
        "yes",
        "y",
        "1",
        "1.0",
        "+1",
        "good",
        "desirable",
        "desired",
        "chosen",
        "preferred",
        "accept",
        "accepted",
        "correct",
        "pass",
        "passed",
        "like",
        "liked",
        "upvote",
        "thumbs_up",
        "👍",
    }
)
UNDESIRABLE: Final = frozenset(
    {
        "false",
        "f",
        "no",
        "n",
        "0",
        "0.0",
        "-1",
        "-1.0",
        "bad",
        "undesirable",
        "undesired",
        "rejected",
        "dispreferred",
        "reject",
        "incorrect",
        "wrong",
        "fail",
        "failed",
        "dislike",
        "disliked",
        "downvote",
        "thumbs_down",
        "👎",
    }
)
TAG: Final = "kto_tag"  # LLaMA-Factory's column, which never means anything else
PLAIN: Final = ("label", "labels")  # columns that may as well have classes
COLUMNS: Final = (*PLAIN, TAG)
_MOST_OTHERS: Final = 0.1  # of the values of a column of labels


def label(value: Any, field: str) -> bool:
    """Return whether a label means desirable. Raises DatasetError for a value that is no such label."""
    found = verdict(value)
    if found is None:
        expected = (
            "a KTO label such as true or false, 1 or 0, good or bad (or another name of the column, if it has none)"
        )
        raise unexpected(field, expected, value)
    return found


def column_of_labels(rows: Sequence[Row]) -> str | None:
    """Return the column that has the labels, or None if the rows have none."""
    if any(not missing(row.get(TAG)) for row in rows):
        return TAG
    return next(
        (
            column
            for column in PLAIN
            if any(not missing(row.get(column)) for row in rows) and why_no_labels(rows, column) is None
        ),
        None,
    )


def why_no_labels(rows: Iterable[Row], column: str) -> str | None:
    """Return why the values of such a column are not KTO labels, as the end of a sentence; None if they are.

    They are if at most a tenth of the values are other ones: then these are faults. Besides other values, both labels
    must occur, or true or false: `good` and `fine`, or 1 and 2, are rather two classes. In -1, 0 and 1, 0 is neutral.
    """
    counts = Counter(_word(value) for row in rows if not missing(value := row.get(column)))
    other = Counter({word: count for word, count in counts.items() if verdict(word) is None})
    if {"-1", "-1.0"} & counts.keys() and {"0", "0.0"} & counts.keys():
        return "it has both -1 and 0, so 0 is neither desirable nor undesirable"
    both = len({verdict(word) for word in counts.keys() - other.keys()}) > 1 or {"true", "false"} & counts.keys()
    if not other or (both and other.total() <= _MOST_OTHERS * counts.total()):
        return None
    shown = ", ".join(repr(shorten(word, 20)) if word else "a list or an object" for word, _ in other.most_common(3))
    return f"{other.total():,} of {counts.total():,} values are no KTO labels, such as {shown}"


def reading(values: Iterable[Any], column: str) -> tuple[str, ...]:
    """Return a note that says how labels other than true and false were read; nothing if there are none."""
    counts = Counter(_word(value) for value in values)
    if not counts.keys() - {"true", "false"}:
        return ()
    read = ", ".join(
        f"{word} as {'desirable' if verdict(word) else 'undesirable'} ({count:,} rows)"
        for word, count in sorted(counts.items())
    )
    return (f"The column `{column}` was read as KTO labels: {read}.",)


def unread(rows: Iterable[Row], column: str) -> tuple[str, ...]:
    """Return a note that says why such a column is not used; nothing if it is empty."""
    why = why_no_labels(rows, column)
    advice = f"To train with KTO, give true and false in the column `{TAG}`."
    return () if why is None else (f"The column `{column}` is not used: {why}. {advice}",)


def missing(value: Any) -> bool:
    """Return whether a cell is empty: null, or an empty cell of CSV."""
    return value is None or (isinstance(value, str) and not value.strip())


def verdict(value: Any) -> bool | None:
    """Return whether a label means desirable; None for a value that is no such label."""
    word = _word(value)
    return True if word in DESIRABLE else False if word in UNDESIRABLE else None


def _word(value: Any) -> str:
    """Return a label as one lower-case word; empty for a value that is no string, number or boolean."""
    if not isinstance(value, bool | int | float | str):
        return ""
    return re.sub(r"(?<=\w)[\s-]+(?=\w)", "_", str(value).strip().casefold())
