"""Download a model from the Hugging Face hub: `python -P -m workers.import_model.hub ORG/NAME[@REVISION] FOLDER`.

Only safetensors weights, tokenizer and configs are downloaded; no code, no pickle. The commit is part of the name of
the model's folder under FOLDER and of its origin.json. Prints that folder. Exit code 2: the model cannot be downloaded
(standard output says why).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final, cast

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from luthier.errors import UserError
from luthier.models.base_model import ORIGIN
from luthier.models.model_files import part_of

WANTED: Final = (".safetensors", ".json", ".jinja", ".txt", ".md")
OTHER_FORMAT: Final = "consolidated"  # a second copy of the weights, in a format that transformers does not read


def download(hub_id: str, models: Path) -> Path:
    """Return the model's folder, downloaded if it does not exist yet. Raises UserError if that fails."""
    name, _, revision = hub_id.partition("@")
    try:
        return _fetch(name, revision or None, models)
    except GatedRepoError as error:
        reason = "it is gated: accept its terms on the hub and set HF_TOKEN"
        raise UserError(f"{name} cannot be downloaded: {reason}", param="source") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{name} has no revision {revision!r}", param="source") from error
    except RepositoryNotFoundError as error:
        reason = "the hub has no such model, or it is private and HF_TOKEN gives no access"
        raise UserError(f"{name} cannot be downloaded: {reason}", param="source") from error
    except UserError:
        raise
    except Exception as error:  # the library's HTTP client, and so its errors, differ between versions
        cause = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{error or type(error).__name__}"
        raise UserError(
            f"{name} cannot be downloaded from {constants.ENDPOINT}: {cause}. Without network access, download it "
            "elsewhere and register its folder: `luthier models add NAME FOLDER`",
            param="source",
        ) from error


def _fetch(name: str, revision: str | None, models: Path) -> Path:
    info = HfApi().model_info(name, revision=revision)
    assert info.sha is not None, "the hub always returns a commit"
    folder = models / f"{name.replace('/', '--')}-{info.sha[:12]}"
    if folder.exists():
        return folder
    files = [file.rfilename for file in info.siblings or ()]
    wanted = [file for file in files if file.endswith(WANTED) and "/" not in file and not file.startswith(OTHER_FORMAT)]
    for needed, why in ((".safetensors", " weights (pickled weights are never loaded)"), ("config.json", "")):
        if not any(file.endswith(needed) for file in wanted):
            raise UserError(f"{name} has no {needed}{why}", param="source")
    part = part_of(folder)
    snapshot_download(name, revision=info.sha, local_dir=part, allow_patterns=wanted)
    shutil.rmtree(part / ".cache", ignore_errors=True)  # the library's own bookkeeping
    (part / ORIGIN).write_text(json.dumps({"origin": f"{name}@{info.sha}"}))
    from workers.import_model import standard_config  # imports transformers

    standard_config.standard(part)  # raises for a model that cannot be registered
    part.rename(folder)
    return folder


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -P -m workers.import_model.hub", description=__doc__)
    parser.add_argument("hub_id", metavar="ORG/NAME[@REVISION]")
    parser.add_argument("models", type=Path, metavar="FOLDER", help="folder in which the model's own folder is created")
    options = parser.parse_args(arguments)
    # torch takes seconds to import, and nothing here needs it.
    cast("dict[str, Any]", sys.modules).setdefault("torch", None)
    try:
        print(download(options.hub_id, options.models))
    except UserError as error:
        print(error.message)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
