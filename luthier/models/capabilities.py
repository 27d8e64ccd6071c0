"""Which weight updates and edits an architecture allows, as a child process found out on a tiny model of it.

The result is kept under the home, for each architecture and the versions of the libraries.
"""

from __future__ import annotations

import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from luthier.errors import LuthierError, UserError
from luthier.models import confined
from luthier.models.base_model import ModelFacts

SECONDS: Final = 300.0  # wall-clock time of all tries together
PACKAGES: Final = ("luthier", "torch", "transformers", "peft")
TRIES: Final = 3  # raise it when the tries change, so that no older result is used

log = logging.getLogger(__name__)


def with_capabilities(
    facts: ModelFacts,
    twin: dict[str, Any],
    architecture: str,
    models: Path,
    step: confined.Step = confined.silent,
    *,
    source: Path,
) -> ModelFacts:
    """Return the facts with the updates and edits that fail. `twin`: the config of the tiny model. `step` is called
    with what is tried.

    `architecture` identifies it, and the results are kept in the folder `models`. Where the tries do not come to an
    end, nothing is known, and the facts say why. Raises UserError if no model with these settings can be trained;
    `source` is the folder of this one.
    """
    folder = models / "capabilities"
    folder.mkdir(parents=True, exist_ok=True)
    versions = "-".join(version(package) for package in PACKAGES)
    kept = folder / f"{architecture}-{TRIES}-{versions}.json"
    with FileLock(folder / f".{architecture}.lock"):
        if not kept.exists():
            question = {"facts": facts.model_dump(mode="json"), "config": twin, "folder": str(source)}
            try:
                found = confined.ask("workers.capabilities", question, param="source", seconds=SECONDS, step=step)
            except LuthierError as error:
                return untried(facts, error.message)
            if found["untrainable"] is not None:
                raise UserError(
                    f"{source} cannot be trained with the settings of its config.json; a tiny {facts.architecture} "
                    f"with the same settings fails too: {found['untrainable']}",
                    param="source",
                )
            part = kept.with_suffix(".part")
            part.write_text(json.dumps(found["unsupported"], indent=2, sort_keys=True))
            part.replace(kept)
        unsupported: dict[str, str] = json.loads(kept.read_text())
    return facts.model_copy(update={"unsupported": unsupported or None})


def untried(facts: ModelFacts, why: str) -> ModelFacts:
    """Return the facts of a model whose updates and edits are all offered, because the tries failed."""
    log.warning("what %s allows could not be found out: %s", facts.architecture, why)
    return facts.model_copy(update={"untried": why})
