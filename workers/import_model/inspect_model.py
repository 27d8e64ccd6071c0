"""Check a folder that is to be registered and read its facts, in a child process that is confined.

The service runs `python -P -m workers.import_model.inspect_model` through `luthier.models.confined`. What it checks
needs no weights in memory and no torch: files, headers, configuration, tokenizer and chat template.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final, cast

from luthier.models import confined

QUESTION: Final = "folder"


def work(question: dict[str, str], step: confined.Step) -> dict[str, Any]:
    """Return the facts of the folder in the question. Raises UserError for what is wrong with it."""
    cast("dict[str, Any]", sys.modules)["torch"] = None  # importing it would take ten times as long as all the rest
    from workers.import_model import checks

    return checks.facts(Path(question[QUESTION]), step).model_dump(mode="json")


if __name__ == "__main__":
    sys.exit(confined.answer(work))
