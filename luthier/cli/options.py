"""Options whose value is a JSON object, or @FILE that holds one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from luthier.errors import UserError


def read_object(given: str, option: str) -> dict[str, Any]:
    """The object; its fields are for the service to check. Raises UserError naming the option."""
    if given.startswith("@"):
        return _parse(_content(Path(given[1:]), option), f"the file {given[1:]}", option)
    return _parse(given, "the JSON", option)


def _content(file: Path, option: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{option}: cannot read {file}: {error}", param=option) from error


def _parse(text: str, source: str, option: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{option}: {source} is not valid JSON: {error}", param=option) from error
    if not isinstance(value, dict):
        raise UserError(f"{option}: {source} must be a JSON object, not {text.strip()[:80]!r}", param=option)
    return value
