"""Check the rows of a job before it is queued: what each eligible base model makes of them.

A child process renders and tokenises every row with the base's own chat template (workers/check_rows.py). Rows that
a template cannot show are named with their numbers. A base model is left out of the job if another one can show them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal

from luthier import child_process, dataset
from luthier.dataset import Row, Splits
from luthier.dataset.errors import LISTED
from luthier.dataset.row_checks import CheckOrder, RowChecks
from luthier.dataset.rows import COLUMNS
from luthier.errors import DatasetError, IllegalDesign
from luthier.graders.subprocess import Child
from luthier.models.base_model import BaseModelEntry
from luthier.store.rows import FileRecord
from luthier.task import DataKind, TruncatedRows

_HALF: Final = 0.5  # a base that cannot show more of the rows than this is left out even where rows may be dropped
_MANY_LOST: Final = 0.1  # of the rows without a target: then a warning says so
_NOTED: Final = 1.1  # how many times the tokens of the chats are worth a note
SECONDS: Final = 60.0  # wall-clock time to begin with a file of rows; the rest may take BUSY times its CPU time
BUSY: Final = 2.0
# CPU time of all rows of a file, once the tokenizer is loaded. Published templates and tokenizers take a tenth of it.
TEMPLATE_SECONDS: Final = 8.0
READ_PER_SECOND: Final = 50_000  # bytes of rows
RENDERED_PER_SECOND: Final = 20_000  # messages: a chat of n messages is rendered up to n times
_ENDED: Final = "its chat template takes more than {seconds:.0f} seconds for them, or too much memory"
_child: Final = Child("rows", partial(child_process.piped, "workers.check_rows"), SECONDS)


class _Unrendered(Exception):
    """The rows cannot be rendered at all for a base model."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The rows of each file that the job uses, and the base models that it does not.

    excluded  base models that cannot show the rows, by name, and why
    rows      rows of the training file, and of the validation file if there is one
    dropped   numbers of the rows of each file that are left out
    checks    for each remaining base model, what the rows of each file become
    notes     for the job's event log
    """

    excluded: dict[str, str]
    rows: list[list[Row]]
    dropped: tuple[frozenset[int], ...] = ()
    checks: dict[str, list[RowChecks]] = field(default_factory=dict)
    numbered: list[list[Row]] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def timed(self) -> bool:
        """Whether a chat template shows the time."""
        return any(found.timed for files in self.checks.values() for found in files)

    def truncation(self, max_tokens: int) -> tuple[TruncatedRows, ...] | None:
        """Return how many rows the length limit truncates, for each base model; None if no rows were checked."""
        found = [
            TruncatedRows(
                model=name,
                max_length=max_tokens,
                rows=sum(map(len, self.rows)),
                truncated=len(self._used(found.truncated(max_tokens) for found in files)),
                without_target=len(self._used(found.without_target(max_tokens) for found in files)),
            )
            for name, files in self.checks.items()
        ]
        return tuple(found) or None

    def within(self, max_tokens: int, splits: Splits) -> tuple[str, ...]:
        """Return what the rows become within the length limit, as sentences.

        Raises DatasetError if no row of a split can be scored.
        """
        notes = self.grown(max_tokens)
        for cut in self.truncation(max_tokens) or ():
            name = cut.model
            if cut.truncated:
                notes.append(f"{name} reads at most {max_tokens} tokens of a row: {cut.truncated} rows are truncated.")
            if not cut.without_target:
                continue
            if cut.without_target < _MANY_LOST * cut.rows:
                notes.append(self._unlearned(name, max_tokens))
            for split, rows in (("validation", splits.validation), ("test", splits.test)):
                if not self._scorable(name, max_tokens, rows):
                    raise DatasetError(
                        f"With {name}, the prompt of every {split} row fills the {max_tokens} tokens that it reads. "
                        "Shorten the prompts, or use a base model with a longer context.",
                        param="training_file",
                    )
        return tuple(notes)

    def warnings(self, max_tokens: int) -> tuple[str, ...]:
        """Return for which base models the length limit leaves much of the rows out of training, as sentences."""
        cuts = self.truncation(max_tokens) or ()
        return tuple(
            self._unlearned(cut.model, max_tokens)
            for cut in cuts
            if cut.without_target and cut.without_target >= _MANY_LOST * cut.rows
        )

    def _unlearned(self, name: str, max_tokens: int) -> str:
        lost = self._lost(name, max_tokens)
        return (
            f"With {name}, the prompts of {len(lost)} rows fill the {max_tokens} tokens (first: row {lost[0][1]}). "
            "Their answers are not trained on, and they are in no metric."
        )

    def scored(self, max_tokens: int, rows: Sequence[Row]) -> int:
        """Return how many of these rows each base model can score within the length limit: the fewest of any."""
        return min((len(rows) - self._unscored(name, max_tokens, rows) for name in self.checks), default=len(rows))

    def _unscored(self, name: str, max_tokens: int, rows: Sequence[Row]) -> int:
        lost = self._lost(name, max_tokens)
        keys = {_key(self.numbered[file][number - 1]) for file, number in lost}
        return sum(_key(row) in keys for row in rows) if keys else 0

    def scorable(self, max_tokens: int, rows: Sequence[Row]) -> bool:
        """Return whether each base model can score at least one of the rows within the length limit."""
        return all(self._scorable(name, max_tokens, rows) for name in self.checks)

    def _scorable(self, name: str, max_tokens: int, rows: Sequence[Row]) -> bool:
        return not rows or self._unscored(name, max_tokens, rows) < len(rows)

    def _lost(self, name: str, max_tokens: int) -> list[tuple[int, int]]:
        """Return the rows whose targets all lie beyond the length limit, as file and number."""
        return self._used(found.without_target(max_tokens) for found in self.checks[name])

    def _used(self, numbers: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
        """Return the rows with these numbers in each file, as file and number, without those that are dropped."""
        return [
            (file, number)
            for file, (found, dropped) in enumerate(zip(numbers, self.dropped, strict=True))
            for number in found
            if number not in dropped
        ]

    def grown(self, max_tokens: int) -> list[str]:
        """Return how much longer the training data becomes where chats become several texts, as sentences."""
        return [note for name, files in self.checks.items() if (note := _grown(name, files, max_tokens))]


def check(
    given: Sequence[tuple[FileRecord, list[Row]]],
    candidates: Sequence[BaseModelEntry],
    *,
    on_bad_rows: Literal["refuse", "drop"],
    tools: bool,
) -> Checked:
    """Render all rows with each candidate. `tools`: the rows use tools.

    Raises DatasetError, naming the rows, if no candidate can show them all, or half of them where `on_bad_rows` is
    "drop"; IllegalDesign if the chat template of no candidate can be rendered at all.
    """
    kind, rows = given[0][0].kind, [own for _, own in given]
    entries = [entry for entry in candidates if entry.facts.family == "decoder" and Path(entry.source).is_dir()]
    if kind is DataKind.TEXT or not entries:
        return Checked(excluded={}, rows=rows)
    checks, failed = dict[str, list[RowChecks]](), dict[str, str]()
    for entry in entries:
        try:
            checks[entry.name] = [_checked(entry, kind, own, tools=tools) for own in rows]
        except _Unrendered as fault:
            failed[entry.name] = f"the rows cannot be rendered: {fault}"
    if not checks:
        reasons = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise IllegalDesign(f"No base model can read the rows. {reasons}", param="model")
    bad = {name: sum(len(found.faults) for found in files) for name, files in checks.items()}
    total = sum(map(len, rows))
    most = total * _HALF if on_bad_rows == "drop" else 0
    usable = {name for name, count in bad.items() if count <= most}
    if not usable:
        best = min(bad, key=lambda name: bad[name])
        raise _refusal(best, [record.filename for record, _ in given], checks[best], on_bad_rows)
    used = {name: files for name, files in checks.items() if name in usable}
    excluded = failed | {name: _unshown(checks[name]) for name in sorted(bad.keys() - usable)}
    notes = [f"Base model {name} is left out: {why}." for name, why in excluded.items()]
    kept, dropped = [], []
    for file, (record, own) in enumerate(given):
        gone = frozenset(number for name in usable for number in checks[name][file].faults)
        dropped.append(gone)
        kept.append([row for number, row in enumerate(own, start=1) if number not in gone])
        if gone:
            notes.append(_dropped(record.filename, gone, used, file))
    notes += _observed(used)
    return Checked(
        excluded=excluded,
        rows=kept,
        dropped=tuple(dropped),
        checks=used,
        numbered=rows,
        notes=tuple(notes),
    )


def _checked(entry: BaseModelEntry, kind: DataKind, rows: Sequence[Row], *, tools: bool) -> RowChecks:
    content = dataset.write_rows(rows)
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(content)
        file.flush()
        seconds = TEMPLATE_SECONDS + len(content) / READ_PER_SECOND + _renderings(rows, kind) / RENDERED_PER_SECOND
        order = CheckOrder(source=entry.source, rows=file.name, kind=kind, tools=tools, seconds=seconds)
        try:
            answer = _child.ask(order.model_dump_json(), SECONDS + BUSY * seconds)
        except TimeoutError as late:
            answer = json.dumps({"failed": str(late)})
    reply = json.loads(answer) if answer else {"failed": _ENDED.format(seconds=seconds)}
    if "failed" in reply:
        raise _Unrendered(reply["failed"])
    return RowChecks.model_validate(reply["checks"])


def _renderings(rows: Sequence[Row], kind: DataKind) -> int:
    """Return how many messages are rendered, if each turn of a chat is rendered with all messages before it."""
    said = (row[column] for row in rows for column in COLUMNS[kind])
    return sum(len(messages) ** 2 for messages in said if isinstance(messages, list))


def _refusal(
    name: str, filenames: Sequence[str], files: Sequence[RowChecks], on_bad_rows: Literal["refuse", "drop"]
) -> DatasetError:
    faults = [
        f"{filename}: row {number}, {message}"
        for filename, found in zip(filenames, files, strict=True)
        for number, message in found.faults.items()
    ]
    advice = 'Correct them, or send "on_bad_rows": "drop".' if on_bad_rows == "refuse" else "That is most of them."
    headline = f"{len(faults)} rows cannot be shown to base model {name}. {advice} The first ones:"
    return DatasetError(headline, faults=faults[:LISTED], param="training_file")


def _unshown(files: Sequence[RowChecks]) -> str:
    number, message = next((number, text) for found in files for number, text in found.faults.items())
    return f"it cannot show {sum(len(found.faults) for found in files)} rows (first: row {number}, {message})"


def _dropped(filename: str, gone: frozenset[int], used: dict[str, list[RowChecks]], file: int) -> str:
    first = min(gone)
    reason = next(files[file].faults[first] for files in used.values() if first in files[file].faults)
    return f"Dropped {len(gone)} rows of {filename} that a base model cannot show (first: row {first}, {reason})."


def _observed(used: dict[str, list[RowChecks]]) -> list[str]:
    """Return what the user should know of rows that can be shown."""
    notes = []
    for name, files in used.items():
        spelt = next(((number, token) for found in files for number, token in found.spelt.items()), None)
        if spelt is not None:
            number, token = spelt
            as_what = "plain text" if files[0].templated else "that token, as the base model has no chat template"
            notes.append(f"Row {number} spells {token}, a control token of {name}: it is read as {as_what}.")
        if unreasoned := sum(found.unreasoned for found in files):
            notes.append(f"The chat template of {name} leaves out the reasoning of {unreasoned} rows.")
        if any(found.timed for found in files):
            notes.append(
                f"The chat template of {name} shows the date or the time. In training and scoring it is that of the "
                "job's creation; later chats show their own."
            )
        if not all(found.stops for found in files):
            notes.append(f"{name} has no token that ends an answer, so it will not learn to stop.")
    return notes


def _grown(name: str, files: Sequence[RowChecks], max_tokens: int) -> str:
    """Return how much longer the chats are that become several texts, as a sentence; empty if there are none."""
    texts = [length for found in files for length in found.texts(max_tokens)]
    chats = [found.lengths[number - 1][0] for found in files for number in found.several]
    factor = sum(texts) / max(1, sum(min(length, max_tokens) for length in chats))
    if not texts or factor < _NOTED:
        return ""
    return (
        f"The chat template of {name} shows earlier turns differently once later ones follow, so they are trained on "
        f"as texts of their own: {len(chats):,} chats become {len(texts):,} texts with {sum(texts):,} tokens, "
        f"{factor:.1f} times those of the chats."
    )


def _key(row: Row) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=False)
