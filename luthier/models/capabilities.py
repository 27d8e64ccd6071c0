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

from luthier.errors import LuthierError
from luthier.models import confined
from luthier.models.base_model import ModelFacts

SECONDS: Final = 300.0  # wall-clock time of all tries together
PACKAGES: Final = ("luthier", "torch", "transformers", "peft")
TRIES: Final = 2  # raise it when the tries change, so that no older result is used

log = logging.getLogger(__name__)


def with_capabilities(
    facts: ModelFacts,
    twin: dict[str, Any],
    architecture: str,
    models: Path,
    step: confined.Step = confined.silent,
) -> ModelFacts:
    """Return the facts with the updates and edits that fail. `twin`: the config of the tiny model. `step` is called
    with what is tried.

    `architecture` identifies it, and the results are kept in the folder `models`. Where the tries do not come to an
    end, nothing is known, and the facts stay as they are.
    """
    folder = models / "capabilities"
    folder.mkdir(parents=True, exist_ok=True)
    versions = "-".join(version(package) for package in PACKAGES)
    kept = folder / f"{architecture}-{TRIES}-{versions}.json"
    with FileLock(folder / f".{architecture}.lock"):
        if not kept.exists():
            question = {"facts": facts.model_dump(mode="json"), "config": twin}
            try:
                found = confined.ask("workers.capabilities", question, param="source", seconds=SECONDS, step=step)
            except LuthierError as error:
                log.warning("what %s allows could not be found out: %s", facts.architecture, error.message)
                return facts
            part = kept.with_suffix(".part")
            part.write_text(json.dumps(found, indent=2, sort_keys=True))
            part.replace(kept)
        unsupported: dict[str, str] = json.loads(kept.read_text())
    return facts.model_copy(update={"unsupported": unsupported or None})
