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
    """Return the `facts` of the folder in the question, the config of its `twin` and the id of its `architecture`; both
    are None if there is no twin, and `untwinned` says why. Raises UserError for what is wrong with the folder."""
    # In an interpreter of its own, importing torch would take ten times as long as all the rest.
    cast("dict[str, Any]", sys.modules).setdefault("torch", None)
    from workers.import_model import checks, standard_config
    from workers.import_model.twin import identity, twin

    folder = Path(question[QUESTION])
    facts = checks.facts(folder, step)
    step(f"Making the config of a tiny {facts.architecture}")
    try:
        small = twin(standard_config.load(folder)[0])
    except Exception as error:  # a config class may refuse sizes in any way; the model is as good without a twin
        why = confined.describe(error)
        return {"facts": facts.model_dump(mode="json"), "twin": None, "architecture": None, "untwinned": why}
    return {
        "facts": facts.model_dump(mode="json"),
        "twin": small.to_dict(),
        "architecture": identity(small, facts.architecture),
        "untwinned": None,
    }


def main() -> int:
    return confined.answer(work)


if __name__ == "__main__":
    sys.exit(main())
