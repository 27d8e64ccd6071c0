"""Where base models come from: a folder, a GGUF file, or a hub id; all of them end as a folder of safetensors.

Converting and downloading take torch or a network, and minutes: child processes of `workers` do it, whose progress
goes to this process's standard error. A source is taken in once; the folder it became is found again.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from filelock import FileLock

from luthier.errors import LuthierError, UserError

HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w.-]+)?")


def local_folder(source: str, home: Path) -> Path:
    """The folder that holds the model; one that had to be made lies under `home`/models.

    Raises UserError naming the file or id and what is wrong with it.
    """
    path = Path(source)
    if path.is_absolute():
        if path.is_dir():
            return path
        if path.suffix == ".gguf" and path.is_file():
            return _converted(path, home / "models")
    elif HUB_ID.fullmatch(source):
        return _downloaded(source, home / "models")
    fault = "is none of these" if path.exists() or not path.is_absolute() else "does not exist"
    raise UserError(
        "source must be the absolute path of a folder or of a GGUF file, or a hub id like org/name; "
        f"{source!r} {fault}",
        param="source",
    )


def _converted(gguf: Path, models: Path) -> Path:
    with gguf.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = models / f"{gguf.stem}-{digest[:12]}"
    with _alone(models, folder.name):
        if not folder.exists():
            _run("workers.import_model.gguf", gguf, folder)
    return folder


def _downloaded(hub_id: str, models: Path) -> Path:
    with _alone(models, hub_id.replace("/", "--")):
        return Path(_run("workers.import_model.hub", hub_id, models))


def _alone(models: Path, name: str) -> FileLock:
    """So that two who ask for the same model at once do not both work for it."""
    models.mkdir(parents=True, exist_ok=True)
    return FileLock(models / f".{name}.lock")


def _run(module: str, *arguments: object) -> str:
    """What the child prints. It exits with 2 where the source is at fault, and then says why."""
    command = [sys.executable, "-P", "-m", module, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    said = done.stdout.strip()
    if done.returncode == 2:
        raise UserError(said, param="source")
    if done.returncode:
        raise LuthierError(f"{module} broke off with exit code {done.returncode}; its standard error says more")
    return said
