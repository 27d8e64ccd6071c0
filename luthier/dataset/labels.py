"""Labels of unpaired preference data (KTO): which words mean desirable, and whether a column has such labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from luthier.dataset.errors import unexpected
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
COLUMNS: Final = ("label", TAG)


def label(value: Any, field: str) -> bool:
    """Return whether a label means desirable. Raises DatasetError for a value that is no such label."""
    found = _desirable(value)
    if found is None:
        expected = (
            "a KTO label such as true or false, 1 or 0, good or bad (or another name of the column, if it has none)"
        )
        raise unexpected(field, expected, value)
    return found


def column_of_labels(rows: Sequence[Row]) -> str | None:
    """Return the column that has the labels, or None if the rows have none.

    A `label` column has labels if at least half of its values are known ones: then the others are faults. A column of
    many classes, or of free text, has not. Neither has one with the three values -1, 0 and 1, in which 0 is neutral.
    """
    if any(not missing(row.get(TAG)) for row in rows):
        return TAG
    given = [row["label"] for row in rows if not missing(row.get("label"))]
    known = sum(_desirable(value) is not None for value in given)
    if not known or 2 * known < len(given):
        return None
    words = {_word(value) for value in given}
    return None if words & {"-1", "-1.0"} and words & {"0", "0.0"} else "label"


def reading(values: Iterable[Any], column: str) -> tuple[str, ...]:
    """Return a note that says how labels other than true and false were read; nothing if there are none."""
    counts = Counter(_word(value) for value in values)
    if not counts.keys() - {"true", "false"}:
        return ()
    read = ", ".join(
        f"{word} as {'desirable' if _desirable(word) else 'undesirable'} ({count:,} rows)"
        for word, count in sorted(counts.items())
    )
    return (f"The column `{column}` was read as KTO labels: {read}.",)


def missing(value: Any) -> bool:
    """Return whether a cell is empty: null, or an empty cell of CSV."""
    return value is None or (isinstance(value, str) and not value.strip())


def _desirable(value: Any) -> bool | None:
    word = _word(value)
    return True if word in DESIRABLE else False if word in UNDESIRABLE else None


def _word(value: Any) -> str:
    """Return a label as one lower-case word; empty for a value that is no string, number or boolean."""
    if not isinstance(value, bool | int | float | str):
        return ""
    return re.sub(r"(?<=\w)[\s-]+(?=\w)", "_", str(value).strip().casefold())
