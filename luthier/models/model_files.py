"""The files of a saved model, read with care: nobody has checked them yet. Every fault is a UserError on `source`."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any, Final

from luthier.errors import UserError

LARGEST_JSON: Final = 8 * 2**20  # bytes of a configuration
LARGEST_TOKENIZER: Final = 256 * 2**20  # bytes of a tokenizer.json; the largest published ones have about 35 MB
LARGEST_TEMPLATE: Final = 2**20  # bytes of a chat template; the largest published ones have about 20 kB
_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"


def check(file: Path, *, most_bytes: int | None = None) -> None:
    """Raise UserError unless the file is a readable, regular file that is not a Git LFS pointer."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise refused(file, "is not a regular file")
        with file.open("rb") as stream:
            start = stream.read(len(_LFS_POINTER))
    except FileNotFoundError as error:
        if file.is_symlink():
            raise refused(file, "is a link to a file that does not exist") from error
        raise UserError(f"{file.parent} has no {file.name}, so it is not a saved model.", param="source") from error
    except OSError as error:
        raise refused(file, f"cannot be read: {error.strerror}") from error
    if start == _LFS_POINTER:
        raise refused(file, "is only a Git LFS pointer; fetch the file itself with `git lfs pull`")
    if most_bytes is not None and status.st_size > most_bytes:
        raise refused(file, f"has {status.st_size:,} bytes, and at most {most_bytes:,} are read")


def text(file: Path, *, most_bytes: int) -> str:
    """Return the text of a file. Raises UserError."""
    check(file, most_bytes=most_bytes)
    try:
        return file.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise refused(file, f"cannot be read: {error}") from error


def json_object(file: Path, *, most_bytes: int = LARGEST_JSON) -> dict[str, Any]:
    """Return the JSON object in a file. Raises UserError; NaN and infinite numbers are no JSON."""
    content = text(file, most_bytes=most_bytes)
    try:
        value = json.loads(content, parse_constant=_no_number)
    except ValueError as error:
        raise refused(file, f"is not valid JSON: {error}") from error
    except RecursionError as error:
        raise refused(file, "is nested too deeply") from error
    if not isinstance(value, dict):
        raise refused(file, "does not contain a JSON object")
    return value


def part_of(folder: Path) -> Path:
    """Return the folder next to a model's own in which it is made, until it is complete."""
    return folder.with_name(f"{folder.name}.part")


def refused(file: Path, why: str) -> UserError:
    """Return the error for a file."""
    return UserError(f"{file} {why}.", param="source")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")
