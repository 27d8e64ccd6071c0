"""Split rows into train, validation and test by a hash of their prompt.

A row's split depends only on its prompt: the same prompt is never in two splits, the order of the rows does not matter,
and new rows do not move old ones. Prompts that nearly repeat one another are in the same split as one of them, whose
hash counts for all; new rows can change such a group. So are chats that begin with the same round, and texts that
continue one another. Files of less than a thousand prompts are an exception: so that
designs can be told apart, a larger share is held out, which takes the prompts with the next lowest hashes.

Where fewer than a hundred validation rows were split off, the training and validation rows can be split in further ways
(cross-validation): the prompts that were not taken for test are cut into as many parts as fit, in the order of their
hashes, and each part in turn is the validation split. The next parts are those of another order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from luthier.dataset.near_duplicates import MOST_PROMPTS, near_duplicates
from luthier.dataset.rows import Row, exact_hash, prompt_hash, prompt_text, row_hash, system_text, text_hash
from luthier.dataset.same_beginning import merged, same_beginning
from luthier.errors import DatasetError
from luthier.task import DataKind

_TEST_SHARE: Final = 0.1
_VALIDATION_SHARE: Final = 0.1
ENOUGH: Final = 100  # held-out prompts in each of both splits, where the file has them
_SMALL_PART: Final = 5  # a small file has a fifth of its prompts in each of both
_BY_SYSTEM: Final = (
    "Rows with the same question under different system messages count as different prompts, as there are few others."
)
_MIN_PROMPTS: Final = 2
_LARGEST_SHARE: Final = 0.05  # of the prompts, in a group of near-duplicates
_LARGE_GROUP: Final = 3  # prompts, in a group of near-duplicates of a small file
_ORDERS: Final = 12  # orders of the prompts that further splits are looked for in


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A further split of the training and validation rows, in the order of `Splits`."""

    train: list[Row]
    validation: list[Row]


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The three splits. Training rows are in the file's order.

    Validation and test rows are in the order of their hashes, so that the first ones are a random sample. `notes` say
    which rows were left out, and why. `folds` are further splits of the training and validation rows.
    """

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    notes: tuple[str, ...]
    folds: tuple[Fold, ...] = ()


def split(
    rows: Sequence[Row], kind: DataKind, *, validation_rows: Sequence[Row] | None = None, folds: int = 0
) -> Splits:
    """Split rows by the hash u in [0, 1) of their folded prompt: u < 0.1 is test, u < 0.2 validation, else train.

    If `validation_rows` is given, it is the validation split, and training rows whose prompts repeat one of it, or
    nearly do, are left out. Rows that repeat another one exactly are kept once in validation and test. Validation and
    test have at least `least_held_out` prompts each. Prompts that nearly repeat one another count as one, unless these
    are too many (`_together`). `folds`: how many further splits are wanted; there are none if `validation_rows` is
    given or the validation rows are `ENOUGH`. Raises DatasetError if there are too few different prompts.
    """
    hashed, given = _hashed(rows, kind), _hashed(validation_rows or (), kind)
    others = 1 if validation_rows is not None else 2
    found = near_duplicates_of([*rows, *(validation_rows or ())], kind)
    prompts = {prompt for prompt, _ in (*hashed, *given)}
    begun = same_beginning([*rows, *(validation_rows or ())], kind)
    groups = merged(_together(found or {}, len(prompts)), begun)
    parts = _parts(hashed, given, groups, others)
    if parts is None and groups:
        groups = {}
        parts = _parts(hashed, given, groups, others)
    by_system = parts is None
    if parts is None:
        hashed, given, found, begun = _with_system(hashed, kind), _with_system(given, kind), {}, {}
        parts = _parts(hashed, given, groups, others)
    leaked = {prompt for prompt, _ in given}
    if parts is None:
        usable = {prompt for prompt, _ in hashed if prompt not in leaked}
        raise _too_few_prompts(len(usable), (others + 1) * _MIN_PROMPTS, sum(prompt in leaked for prompt, _ in hashed))

    held_out = hashed if validation_rows is None else given
    validation, repeats = _once(held_out, parts.validation, groups, kind)
    test, test_repeats = _once(hashed, parts.test, groups, kind)
    train = [row for prompt, row in hashed if groups.get(prompt, prompt) in parts.train]
    alone = {*(found or {}), *begun} - groups.keys()
    notes = _notes(
        leaked=sum(prompt in leaked for prompt, _ in hashed),
        near=sum(prompt not in leaked and groups.get(prompt, prompt) in parts.left_out for prompt, _ in hashed),
        repeats={"validation": repeats, "test": test_repeats},
        begun=sum(prompt in begun for prompt, _ in (*hashed, *given)) if groups else 0,
        together=sum(prompt in groups and prompt in (found or {}) for prompt, _ in (*hashed, *given)),
        apart=sum(prompt in alone for prompt, _ in (*hashed, *given)),
        searched=found is not None,
    )
    few = validation_rows is None and len(validation) < ENOUGH
    return Splits(
        train=train,
        validation=validation,
        test=test,
        notes=(*notes, *([_BY_SYSTEM] if by_system else [])),
        folds=tuple(islice(_folds(hashed, parts, groups, kind), folds if few else 0)),
    )


def least_held_out(prompts: int) -> int:
    """Return the least number of prompts in validation and in test: 100, or a fifth of a smaller file; at least 2."""
    return max(_MIN_PROMPTS, min(ENOUGH, prompts // _SMALL_PART))


def about_held_out(rows: int) -> int:
    """Return about how many of a file's rows will be in validation, and in test, if its prompts differ."""
    return max(round(_TEST_SHARE * rows), least_held_out(rows))


def near_duplicates_of(rows: Iterable[Row], kind: DataKind) -> Mapping[str, str] | None:
    """Return, by the hash of each prompt that nearly repeats another, the hash of the one that stands for its group.

    None if there are too many prompts to search.
    """
    texts = {text_hash(text): text for text in (prompt_text(row, kind) for row in rows)}
    return near_duplicates(texts, values=kind is not DataKind.TEXT)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The prompts of each split; of a group of near-duplicates, only the one that stands for it."""

    train: Collection[str]
    validation: Collection[str]
    test: Collection[str]
    left_out: Collection[str]


def _parts(
    hashed: Sequence[tuple[str, Row]], given: Sequence[tuple[str, Row]], groups: Mapping[str, str], others: int
) -> _Parts | None:
    """Return the prompts of each split, or None if there are too few."""
    held_out = {groups.get(prompt, prompt) for prompt, _ in given}
    prompts = sorted({groups.get(prompt, prompt) for prompt, _ in hashed} - held_out)
    smallest = least_held_out(len(prompts))
    if len(prompts) < (others + 1) * _MIN_PROMPTS:
        return None
    test_end = _end(prompts, _TEST_SHARE, smallest, len(prompts) - others * smallest)
    if others == 1:
        return _Parts(
            train=set(prompts[test_end:]), validation=held_out, test=set(prompts[:test_end]), left_out=held_out
        )
    train_start = _end(prompts, _TEST_SHARE + _VALIDATION_SHARE, test_end + smallest, len(prompts) - smallest)
    return _Parts(
        train=set(prompts[train_start:]),
        validation=set(prompts[test_end:train_start]),
        test=set(prompts[:test_end]),
        left_out=(),
    )


def _folds(
    hashed: Sequence[tuple[str, Row]], parts: _Parts, groups: Mapping[str, str], kind: DataKind
) -> Iterator[Fold]:
    """Yield further splits of the prompts in training and validation, with as many prompts in validation.

    The validation parts of one order of the prompts are disjoint; the first one of the first order is the validation
    split itself. Splits are skipped whose rows could not be scored.
    """
    prompts, size = sorted({*parts.train, *parts.validation}), len(parts.validation)
    for order in range(_ORDERS):
        if order:
            prompts.sort(key=lambda prompt: text_hash(f"{order} {prompt}"))
        for part in range(0 if order else 1, len(prompts) // size):
            chosen = set(prompts[part * size : (part + 1) * size])
            rest = {prompt for prompt in prompts if prompt not in chosen}
            train = [row for prompt, row in hashed if groups.get(prompt, prompt) in rest]
            validation, _ = _once(hashed, chosen, groups, kind)
            if all(_both_labels(rows, kind) for rows in (train, validation)):
                yield Fold(train=train, validation=validation)


def _both_labels(rows: Sequence[Row], kind: DataKind) -> bool:
    """Return whether the rows have both labels, where they are labelled."""
    return kind is not DataKind.UNPAIRED or len({row["label"] for row in rows}) == 2


def _together(found: Mapping[str, str], prompts: int) -> dict[str, str]:
    """Return the groups of near-duplicates that stay in one split: those of at most a twentieth of the prompts.

    A larger one is rather a template with many values, and the split that it came to would be mostly this template.
    """
    sizes = Counter(found.values())
    largest = max(_LARGE_GROUP, int(_LARGEST_SHARE * prompts))
    return {prompt: group for prompt, group in found.items() if sizes[group] <= largest}


def _hashed(rows: Iterable[Row], kind: DataKind) -> list[tuple[str, Row]]:
    return [(prompt_hash(row, kind), row) for row in rows]


def _with_system(hashed: Iterable[tuple[str, Row]], kind: DataKind) -> list[tuple[str, Row]]:
    """Return the rows with prompts that differ also where only their system messages do."""
    return [(text_hash(prompt + system_text(row, kind)), row) for prompt, row in hashed]


def leaks(rows: Iterable[Row], validation_rows: Iterable[Row], kind: DataKind) -> int:
    """Return how many validation rows have a prompt that is also in the training rows."""
    prompts = {prompt_hash(row, kind) for row in rows}
    return sum(prompt_hash(row, kind) in prompts for row in validation_rows)


def _end(prompts: Sequence[str], share: float, at_least: int, at_most: int) -> int:
    """Return how many of the sorted hashes lie below `share` of the range, within bounds."""
    below = bisect_left(prompts, f"{int(share * 2**256):064x}")
    return min(max(below, at_least), at_most)


def _once(
    hashed: Iterable[tuple[str, Row]], chosen: Collection[str], groups: Mapping[str, str], kind: DataKind
) -> tuple[list[Row], int]:
    """Return the rows of the chosen prompts, sorted by hash and without repeats, and the number of repeats."""
    found: dict[tuple[str, str, str], Row] = {}
    count = 0
    for prompt, row in hashed:
        if groups.get(prompt, prompt) in chosen:
            count += 1
            found.setdefault((prompt, row_hash(row, kind), exact_hash(row, kind)), row)
    return [found[key] for key in sorted(found)], count - len(found)


def _notes(
    *, leaked: int, near: int, repeats: Mapping[str, int], begun: int, together: int, apart: int, searched: bool
) -> tuple[str, ...]:
    notes = []
    if leaked:
        notes.append(f"Left out {leaked} training rows whose prompts are also in the validation file.")
    if near:
        notes.append(
            f"Left out {near} training rows whose prompts nearly repeat one of the validation file, or begin like it."
        )
    notes += [f"Left out {count} duplicate rows of the {name} split." for name, count in repeats.items() if count]
    if begun:
        notes.append(f"{begun} rows begin like another one. These stay in one split.")
    if together:
        notes.append(f"{together} rows have prompts that nearly repeat another one. These stay in one split.")
    if apart:
        notes.append(
            f"{apart} rows have prompts that nearly repeat another one, or begin like it, and may be in several "
            "splits: keeping so many together would leave too few prompts for each split."
        )
    if not searched:
        notes.append(f"Near-duplicates were not searched for, because there are more than {MOST_PROMPTS:,} prompts.")
    return tuple(notes)


def _too_few_prompts(count: int, needed: int, leaked: int) -> DatasetError:
    left = f" (and {leaked} rows whose prompts are in the validation file)" if leaked else ""
    return DatasetError(
        f"The dataset has only {count} different prompts{left}. At least {needed} are needed, because no prompt may be "
        "in two splits."
    )
