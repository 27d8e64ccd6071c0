"""Sources of base models: a folder, a GGUF file or a hub id. Each becomes a folder of safetensors.

Child processes of `workers` convert and download, because that needs torch or a network, and takes minutes. Their
progress goes to this process's standard error. Results are cached under the home.
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
    """Return the folder of the model; converted and downloaded ones are under `home`/models.

    Raises UserError naming the source and what is wrong with it.
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
        "The source must be the absolute path of a folder or GGUF file, or a hub id like org/name. "
        f"{source!r} {fault}.",
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
    """Return a lock, so that concurrent requests for one model do the work only once."""
    models.mkdir(parents=True, exist_ok=True)
    return FileLock(models / f".{name}.lock")


def _run(module: str, *arguments: object) -> str:
    """Run the module and return what it prints. Exit code 2 means that the source is invalid; it prints why."""
    command = [sys.executable, "-P", "-m", module, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    said = done.stdout.strip()
    if done.returncode == 2:
        raise UserError(said, param="source")
    if done.returncode:
        raise LuthierError(f"{module} failed with exit code {done.returncode}. Its standard error has the details.")
    return said
