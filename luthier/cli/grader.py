"""The option `--grader`: a grader's name, its JSON, or a file that holds its JSON."""

from __future__ import annotations

from typing import Any, Final

from luthier.cli.options import read_object
from luthier.errors import UserError

NAMES: Final = ("string_check", "text_similarity", "number", "math")
HELP: Final = (
    f"How generations are graded: {', '.join(NAMES)}, a grader as a JSON object, "
    'e.g. \'{"type": "string_check", "operation": "ilike"}\', or @FILE.json that holds one (the way for python, '
    "score_model, label_model and multi)."
)


def read_grader(option: str) -> dict[str, Any]:
    """The grader as JSON; its fields are for the service to check. Raises UserError naming the option."""
    if option.startswith("@") or option.lstrip().startswith("{"):
        return read_object(option, "--grader")
    if option not in NAMES:
        raise UserError(
            f"--grader must be one of {', '.join(NAMES)}, a JSON object, or @FILE.json, not {option!r}",
            param="--grader",
        )
    return {"type": option}
