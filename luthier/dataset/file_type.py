"""Detect the type of a dataset file by its name and its content. They must agree."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Final

from luthier.errors import DatasetError

BOM: Final = b"\xef\xbb\xbf"
_HEAD_BYTES: Final = 64 * 1024


class Container(StrEnum):
    """The file type."""

    JSONL = "JSON Lines"
    JSON = "a JSON array"
    CSV = "CSV"
    PARQUET = "Parquet"
    TEXT = "plain text"


_ENDINGS: Final = {
    ".jsonl": Container.JSONL,
    ".ndjson": Container.JSONL,
    ".json": Container.JSON,
    ".csv": Container.CSV,
    ".tsv": Container.CSV,
    ".parquet": Container.PARQUET,
    ".txt": Container.TEXT,
    ".md": Container.TEXT,
}

_JSON_START: Final = re.compile(
    r'(?:\[\s*)*\{\s*"(?:[^"\\]|\\.)*"\s*:|\[\s*"(?:[^"\\]|\\.)*"\s*,'
)  # of an object or a list
_PARQUET: Final = b"PAR1"
_SIGNATURES: Final = (
    (b"PK\x03\x04", "a ZIP archive (or an Office document)"),
    (b"\xd0\xcf\x11\xe0", "an Office document"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"%PDF-", "PDF"),
    (_PARQUET, "Parquet"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"GGUF", "GGUF model weights"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "HDF5"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x7fELF", "a program"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file itself"),
)
_REMEDIES: Final = {
    "Office": "Unpack it, or save a sheet of Excel as CSV (UTF-8), and a document as plain text.",
    "gzip": "Unpack it (gunzip) and upload the file in it.",
    "bzip2": "Unpack it (bunzip2) and upload the file in it.",
    "xz": "Unpack it (unxz) and upload the file in it.",
    "Zstandard": "Unpack it (unzstd) and upload the file in it.",
    "7-Zip": "Unpack it and upload the file in it.",
    "UTF-16": "Save it as UTF-8.",
    "zero bytes": "If it is text in UTF-16 or UTF-32, save it as UTF-8.",
    "pickle": "Write its rows as JSON Lines.",
    "SQLite": "Export the table as CSV or JSON Lines.",
    "NumPy": "Write its rows as JSON Lines.",
    "HDF5": "Write its rows as JSON Lines.",
    "Arrow": "Write it as Parquet (datasets: to_parquet).",
    "PDF": "Upload its text.",
    "Git LFS": "Fetch it with `git lfs pull`.",
    "Parquet": "Rename it to .parquet.",
}


def recognise(path: Path, filename: str) -> Container:
    """Return the file type. Raises DatasetError if the extension is not accepted or does not match the content.

    The first character decides between JSON Lines and a JSON array, whichever of their extensions the name has.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head.removeprefix(BOM).strip() and path.stat().st_size <= len(head):
        raise DatasetError(f"{filename} is empty")
    ending = PurePath(filename).suffix.lower()
    named = _ENDINGS.get(ending)
    looks = next((name for signature, name in _SIGNATURES if head.startswith(signature)), None)
    if named is Container.PARQUET and head.startswith(_PARQUET):
        return Container.PARQUET
    if looks is None and b"\x00" in head:
        looks = "binary data (it contains zero bytes)"
    if looks:
        wanted = named or "one of the accepted formats"
        remedy = next((f" {advice}" for word, advice in _REMEDIES.items() if word in looks), "")
        raise DatasetError(
            f"{filename} looks like {looks}, not like {wanted}.{remedy} Accepted extensions: {_accepted()}"
        )
    if named is None:
        raise DatasetError(f"The extension of {filename!r} is not accepted. Accepted extensions: {_accepted()}")
    return _by_first_character(named, head.removeprefix(BOM).lstrip(), filename)


def _by_first_character(named: Container, start: bytes, filename: str) -> Container:
    bracket = start[:1]
    if named is not Container.TEXT and start[:14].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise DatasetError(
            f"{filename} looks like an HTML page or XML, not like {named}. If you downloaded it, take the link to the "
            "file itself."
        )
    match named:
        case Container.JSONL | Container.JSON:
            if _first_line(start).strip() == b"{":
                raise DatasetError(
                    f"{filename} contains an object over several lines. "
                    "Put each row on its own line, or all rows in one JSON array."
                )
            return Container.JSON if bracket == b"[" else Container.JSONL
        case Container.CSV if bracket in (b"{", b"["):
            raise DatasetError(f"{filename} looks like JSON, not like CSV. Rename it to .jsonl.")
        case Container.TEXT if bracket == b"{" and _is_json(_first_line(start)):
            raise DatasetError(f"{filename} looks like JSON Lines, not like plain text. Rename it to .jsonl.")
        case Container.TEXT if bracket in (b"{", b"[") and _starts_json(start):
            raise DatasetError(f"{filename} looks like JSON, not like plain text. Rename it to .json.")
        case Container.PARQUET:
            raise DatasetError(f"{filename} is not Parquet: the file does not start with PAR1")
        case _:
            return named


def _first_line(text: bytes) -> bytes:
    return re.split(rb"[\r\n]", text, maxsplit=1)[0]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _starts_json(head: bytes) -> bool:
    """Return whether a file that starts with a bracket is JSON: one value, the beginning of one, or several of them.

    Prose may start with a bracket too, and Markdown with an object of its own, its front matter.
    """
    text = head.decode(errors="ignore")
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except RecursionError:
        return True
    except ValueError:
        return _JSON_START.match(text) is not None
    return bool(value) and text[end:].lstrip()[:1] in ("", ",", "{", "[")


def _accepted() -> str:
    return ", ".join(_ENDINGS)
