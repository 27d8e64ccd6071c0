"""Which unused columns have a text that may belong to the question or the answer: all of them are named in one note.

Names do not decide it, because files have any. The values do: text that differs from row to row and is not learned
already. Identifiers, dates, links, numbers, constants and short classes are no such text. Of columns that are called as
what is about a row, only sentences are; and short classes where they tell answers to the same prompt apart.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median_high
from typing import Any, Final

from luthier.dataset.errors import columns, shorten
from luthier.dataset.labels import missing
from luthier.dataset.question_parts import texts
from luthier.dataset.rows import COLUMNS, Row, prompt_hash
from luthier.task import DataKind

_LOOKED_AT: Final = 500  # rows, spread over the file
_FEWEST_WORDS: Final = 3  # of most values of a text
_FEWEST_LETTERS: Final = 6  # of one in a script without spaces between words
_SAMPLE: Final = 40
_MOST_CLASS: Final = 40  # characters of the name of a class
_WORD: Final = re.compile(r"[^\W\d_]{2,}|[^\W\d_](?=\s|$)")
_NO_PROSE: Final = re.compile(  # as a whole value: links, paths, and what has no letter but in dates and versions
    r"\s*(?:\w+://\S+|[\w.~-]*[/\\]\S+|[\w+.-]+@[\w.-]+|\S*\d\S*"
    r"|(?:(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun)[a-z]*|utc|gmt|[ap]m|[\W\d]|\s)+)\s*",
    re.IGNORECASE,
)
_METADATA: Final = re.compile(  # what text is called that is about the row
    r"(.*[\W_])?(id|ids|uuid|guid|hash|url|uri|link|path|file|filename|date|time|timestamp|created|updated|author|authors"
    r"|user|username|speaker|annotator|worker|source|sources|origin|dataset|split|licen[cs]e|language|lang|locale|model|version"
    r"|tag|tags|keywords|meta|metadata|category|categories|topic|topics|domain|type|difficulty|level|name)",
    re.IGNORECASE,
)

_ABOUT_TEXT: Final = re.compile(  # metadata that a text may as well be classified by
    r"(.*[\W_])?(language|lang|tags?|keywords|category|categories|topics?|domain|type|difficulty|level)", re.IGNORECASE
)
_WANTED: Final = re.compile(  # short classes that say what is asked for
    r"((target|output|desired|requested|wanted|expected|writing)[\W_])?(style|tone|register|audience|persona)"
    r"|(target|output|desired|requested|wanted|expected|tgt|to)[\W_]?(language|lang|length|level|format|genre)",
    re.IGNORECASE,
)
_IDENTIFIER: Final = re.compile(r"|(.*[\W_])?(id|idx|index|uuid|guid|hash|row|no|nr)|unnamed.*", re.IGNORECASE)
_SENTENCE_WORDS: Final = 6
_TOLD_APART: Final = 0.2  # of the rows have answers that a class tells apart from others to the same prompt


def left_out(raw: Sequence[Row], normal: Sequence[Row], kind: DataKind, unused: Sequence[str]) -> dict[str, str]:
    """Return the unused columns that have a text which is not learned, each with a sample of it.

    Beside plain text and prompts, whose answers have any name, a class of few words counts as text too. So it does
    where it says what is asked for.
    """
    step = max(1, len(raw) // _LOOKED_AT)
    rows = list(zip(raw[::step], normal[::step], strict=True))
    found = {}
    for column in unused:
        given = [(row[column], read) for row, read in rows if not missing(row.get(column))]
        values = [" ".join(texts(value)) for value, _ in given]
        if len(set(values)) < 2 or not _may_matter(column, given, values, kind, unused):
            continue
        learned = sum(_learned(value, read, kind) for value, (_, read) in zip(values, given, strict=True))
        if 2 * learned < len(values):
            found[column] = shorten(" ".join(values[0].split()), _SAMPLE)
    return found


def _may_matter(
    column: str, given: Sequence[tuple[Any, Row]], values: Sequence[str], kind: DataKind, unused: Sequence[str]
) -> bool:
    """Return whether the values of an unused column may belong to the question or the answer."""
    name, is_class = column.strip(), _is_class(values)
    if _METADATA.fullmatch(name) and not _WANTED.fullmatch(name):
        alone = kind is DataKind.TEXT and is_class and _ABOUT_TEXT.fullmatch(name) is not None
        return _are_sentences([value for value, _ in given]) or (alone and _is_alone(values, unused))
    if _is_text(values) or (kind in (DataKind.TEXT, DataKind.PROMPTS) and is_class):
        return True
    if not is_class or kind is not DataKind.PAIRS:
        return False
    return _WANTED.fullmatch(name) is not None or _tells_apart([row for _, row in given], values)


def _are_sentences(values: Sequence[Any]) -> bool:
    """Return whether values are strings of many words, most of which differ."""
    if not all(isinstance(value, str) and value.lstrip()[:1] not in ("{", "[") for value in values):
        return False
    return 2 * len(set(values)) >= len(values) and median_high(map(_words, values)) >= _SENTENCE_WORDS


def _is_alone(values: Sequence[str], unused: Sequence[str]) -> bool:
    """Return whether the classes stand in the only unused column but identifiers, and most have several texts."""
    others = [name for name in unused if not _IDENTIFIER.fullmatch(name.strip())]
    return len(others) == 1 and 2 * len(set(values)) <= len(values)


def _tells_apart(rows: Sequence[Row], values: Sequence[str]) -> bool:
    """Return whether the values differ in many rows of the same prompt with different answers."""
    groups: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for row, value in zip(rows, values, strict=True):
        groups[prompt_hash(row, DataKind.PAIRS)].append((" ".join(_said(row["completion"])), value))
    apart = 0
    for group in groups.values():
        answers, classes = ({pair[side] for pair in group} for side in (0, 1))
        apart += len(group) if 1 < len(answers) == len(classes) == len(set(group)) else 0
    return apart >= _TOLD_APART * len(rows)


def note(found: dict[str, str], kind: DataKind) -> tuple[str, ...]:
    """Return the note that names the columns that are left out, with samples; nothing without any."""
    if not found:
        return ()
    shown = ", ".join(f"{columns([column])} ({sample!r})" for column, sample in list(found.items())[:12])
    more = f" and {len(found) - 12} more" if len(found) > 12 else ""
    match kind:
        case DataKind.TEXT:
            advice = (
                "To learn one from the text, call the text `prompt` and it `completion`. Else leave it out, or put it "
                "into the text"
            )
        case _:
            advice = (
                "If one belongs to the question, put it into the prompt, or call it `context`; instructions may be "
                "called `system`. Else leave it out"
            )
    return (f"Nothing is learned from {shown}{more}. {advice}.",)


def _is_text(values: Sequence[str]) -> bool:
    """Return whether most values are several words, and no links, dates or identifiers."""
    return median_high(map(_words, values)) >= _FEWEST_WORDS


def _is_class(values: Sequence[str]) -> bool:
    """Return whether most values are one or two words, such as the names of classes or a translated word."""
    return median_high(bool(_words(value)) and len(value) <= _MOST_CLASS for value in values)


def _words(value: str) -> int:
    if _NO_PROSE.fullmatch(value[:1_000]):
        return 0
    words = _WORD.findall(value[:1_000])
    letters = sum(len(word) for word in words)
    unspaced = not value[:1_000].isascii() and letters >= _FEWEST_LETTERS and len(words) < _FEWEST_WORDS
    return _FEWEST_WORDS if unspaced and letters > 12 * len(words) // 2 else len(words)


def _learned(value: str, row: Row, kind: DataKind) -> bool:
    """Return whether a text stands in what is learned, or contains all of it, as a rendered example does."""
    parts = {
        column: [" ".join(text.split()) for text in _said(row[column])] for column in COLUMNS[kind] if column != "label"
    }
    text = " ".join(value.split())
    return any(text in part for found in parts.values() for part in found) or all(
        part in text for column, found in parts.items() if column != "rejected" for part in found
    )


def _said(value: Any) -> Iterator[str]:
    """Yield a text, or what the messages say and call."""
    if isinstance(value, list):
        for message in value:
            yield str(message.get("content") or "")
            yield from texts(message.get("tool_calls"))
    elif isinstance(value, str):
        yield value
