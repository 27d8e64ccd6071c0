"""The option `--grader`: a grader's name, its JSON, or a file that holds its JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from luthier.errors import UserError

NAMES: Final = ("string_check", "text_similarity", "number", "math")
HELP: Final = (
    f"How generations are graded: {', '.join(NAMES)}, a grader as a JSON object, "
    'e.g. \'{"type": "string_check", "operation": "ilike"}\', or @FILE.json that holds one (the way for python, '
    "score_model, label_model and multi)."
)


def read_grader(option: str) -> dict[str, Any]:
    """The grader as JSON; its fields are for the service to check. Raises UserError naming the option."""
    if option.startswith("@"):
        return _parse(_content(Path(option[1:])), f"the file {option[1:]}")
    if option.lstrip().startswith("{"):
        return _parse(option, "the JSON")
    if option not in NAMES:
        raise UserError(
            f"--grader must be one of {', '.join(NAMES)}, a JSON object, or @FILE.json, not {option!r}",
            param="--grader",
        )
    return {"type": option}


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--grader: cannot read {file}: {error}", param="--grader") from error


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        grader = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"--grader: {source} is not valid JSON: {error}", param="--grader") from error
    if not isinstance(grader, dict):
        raise UserError(f"--grader: {source} must be a JSON object, not {text.strip()[:80]!r}", param="--grader")
    return grader
