"""Verdicts of a file that contradict one another: two labels, scores against the preference, and a pair both ways."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from luthier.dataset import labels
from luthier.dataset.errors import columns
from luthier.dataset.rows import Row, text_hash
from luthier.task import DataKind

_SIDES: Final = ("chosen", "rejected")
_SCORE: Final = re.compile(r"score|rating|reward|grade|quality|vote|stars|helpful|correct|overall", re.IGNORECASE)


def notes(raw: Sequence[Row], normal: Sequence[Row], kind: DataKind, unused: Collection[str]) -> Iterator[str]:
    """Yield the contradictions, as sentences with counts. `unused`: the columns that no training uses."""
    if kind is DataKind.UNPAIRED:
        yield from _labels(raw, normal, unused)
        if both := _both_labels(normal):
            yield f"{both:,} rows have the prompt and the answer of another row, with the other label."
    if kind is DataKind.PREFERENCE:
        yield from _scores(raw, unused)
        if both := _both_ways(normal):
            yield f"{both:,} rows have the chosen and the rejected answer of another row, the other way round."


def _labels(raw: Sequence[Row], normal: Sequence[Row], unused: Collection[str]) -> Iterator[str]:
    for column in (name for name in labels.COLUMNS if name in unused):
        if labels.why_no_labels(raw, column) is not None:
            continue
        pairs = [(labels.verdict(row.get(column)), read["label"]) for row, read in zip(raw, normal, strict=True)]
        if count := sum(found is not None and found != used for found, used in pairs):
            yield f"In {count:,} rows, `{column}` contradicts the label that is used. Leave one of the two columns out."


def _scores(raw: Sequence[Row], unused: Collection[str]) -> Iterator[str]:
    """Yield in how many rows the rejected answer has the higher score."""
    for name in unused:
        other = name.replace(*_SIDES)
        if other == name or other not in unused or not _SCORE.search(name):  # log-probabilities may be either way
            continue
        scores = [(_number(row.get(name)), _number(row.get(other))) for row in raw]
        if count := sum(good is not None and bad is not None and good < bad for good, bad in scores):
            yield (
                f"In {count:,} rows, the rejected answer has a higher score than the chosen one "
                f"({columns([name, other])})."
            )


def _number(value: Any) -> float | None:
    """Return a score, which is text in CSV; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _both_labels(rows: Sequence[Row]) -> int:
    """Return how many rows have the prompt and the answer of another row, but not its label."""
    found: defaultdict[str, set[bool]] = defaultdict(set)
    keys = [_key(row, "prompt", "completion") for row in rows]
    for key, row in zip(keys, rows, strict=True):
        found[key].add(row["label"])
    return sum(len(found[key]) > 1 for key in keys)


def _both_ways(rows: Sequence[Row]) -> int:
    """Return how many rows have the answers of another row with its prompt, the other way round."""
    known = {_key(row, "prompt", "chosen", "rejected") for row in rows}
    return sum(_key(row, "prompt", "rejected", "chosen") in known for row in rows)


def _key(row: Row, *names: str) -> str:
    return text_hash(json.dumps([row[name] for name in names], ensure_ascii=False, sort_keys=True))
