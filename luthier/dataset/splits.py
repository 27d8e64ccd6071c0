"""Split rows into train, validation and test by a hash of their prompt.

A row's split depends only on its prompt: the same prompt is never in two splits, the order of the rows does not matter,
and new rows do not move old ones. Small files are an exception: a split that is too small takes the prompts with the
next lowest hashes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from luthier.dataset.rows import Row, prompt_hash, row_hash
from luthier.errors import DatasetError
from luthier.task import DataKind

_TEST_SHARE: Final = 0.1
_VALIDATION_SHARE: Final = 0.1
_MIN_PROMPTS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The three splits. Training rows are in the file's order.

    Validation and test rows are in the order of their hashes, so that the first ones are a random sample. `notes` say
    which rows were left out, and why.
    """

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    notes: tuple[str, ...]


def split(rows: Sequence[Row], kind: DataKind, *, validation_rows: Sequence[Row] | None = None) -> Splits:
    """Split rows by the hash u in [0, 1) of their folded prompt: u < 0.1 is test, u < 0.2 validation, else train.

    If `validation_rows` is given, it is the validation split, and training rows that share a prompt with it are left
    out. Duplicates are kept once in validation and test. Each split has at least a tenth of the prompts (10 at most,
    2 at least). Raises DatasetError if there are too few different prompts.
    """
    hashed = [(prompt_hash(row, kind), row) for row in rows]
    given = [(prompt_hash(row, kind), row) for row in validation_rows or ()]
    leaked = {prompt for prompt, _ in given}
    usable = [(prompt, row) for prompt, row in hashed if prompt not in leaked]
    prompts = sorted({prompt for prompt, _ in usable})

    others = 1 if validation_rows is not None else 2
    smallest = max(_MIN_PROMPTS, min(10, len(prompts) // 10))
    if len(prompts) < (others + 1) * smallest:
        raise _too_few_prompts(len(prompts), (others + 1) * smallest, len(hashed) - len(usable))
    test_end = _end(prompts, _TEST_SHARE, smallest, len(prompts) - others * smallest)
    if validation_rows is None:
        share = _TEST_SHARE + _VALIDATION_SHARE
        train_start = _end(prompts, share, test_end + smallest, len(prompts) - smallest)
        given = usable
        chosen = set(prompts[test_end:train_start])
    else:
        train_start, chosen = test_end, leaked

    validation, repeats = _once(given, chosen, kind)
    test, test_repeats = _once(usable, set(prompts[:test_end]), kind)
    trained = set(prompts[train_start:])
    train = [row for prompt, row in usable if prompt in trained]
    notes = _notes(len(hashed) - len(usable), repeats, test_repeats)
    return Splits(train=train, validation=validation, test=test, notes=notes)


def leaks(rows: Iterable[Row], validation_rows: Iterable[Row], kind: DataKind) -> int:
    """Return how many validation rows have a prompt that is also in the training rows."""
    prompts = {prompt_hash(row, kind) for row in rows}
    return sum(prompt_hash(row, kind) in prompts for row in validation_rows)


def _end(prompts: Sequence[str], share: float, at_least: int, at_most: int) -> int:
    """Return how many of the sorted hashes lie below `share` of the range, within bounds."""
    below = bisect_left(prompts, f"{int(share * 2**256):064x}")
    return min(max(below, at_least), at_most)


def _once(hashed: Iterable[tuple[str, Row]], chosen: Collection[str], kind: DataKind) -> tuple[list[Row], int]:
    """Return the rows of the chosen prompts, sorted by hash and without duplicates, and the number of duplicates."""
    found: dict[tuple[str, str], Row] = {}
    count = 0
    for prompt, row in hashed:
        if prompt in chosen:
            count += 1
            found.setdefault((prompt, row_hash(row, kind)), row)
    return [found[key] for key in sorted(found)], count - len(found)


def _notes(leaked: int, validation_repeats: int, test_repeats: int) -> tuple[str, ...]:
    notes = []
    if leaked:
        notes.append(f"Left out {leaked} training rows whose prompts are also in the validation file.")
    for name, repeats in (("validation", validation_repeats), ("test", test_repeats)):
        if repeats:
            notes.append(f"Left out {repeats} duplicate rows of the {name} split.")
    return tuple(notes)


def _too_few_prompts(count: int, needed: int, leaked: int) -> DatasetError:
    left = f" (and {leaked} rows whose prompts are in the validation file)" if leaked else ""
    return DatasetError(
        f"The dataset has only {count} different prompts{left}. At least {needed} are needed, because no prompt may be "
        "in two splits."
    )
