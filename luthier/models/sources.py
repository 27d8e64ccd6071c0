"""Sources of base models: a folder, a GGUF file or a hub id. Each becomes a folder of safetensors.

Child processes of `workers` convert and download, because that needs torch or a network, and takes minutes. Their
progress goes to this process's standard error. Results are cached under the home. Another child checks the folder and
reads its facts.
"""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from luthier.errors import LuthierError, UserError
from luthier.models import confined
from luthier.models.base_model import ModelFacts
from luthier.models.capabilities import with_capabilities

READ: Final = ("*.json", "*.jinja", "*.safetensors", "*.txt", "*.model", "*/*.jinja")  # the files of a model
HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w.-]+)?")


def local_folder(source: str, home: Path) -> Path:
    """Return the folder of the model; converted and downloaded ones are under `home`/models.

    Raises UserError naming the source and what is wrong with it.
    """
    path = Path(source)
    if path.is_absolute():
        if _is(path.is_dir):
            return path
        if path.suffix == ".gguf" and _is(path.is_file):
            return _converted(path, home / "models")
    elif HUB_ID.fullmatch(source):
        with _lock(home / "models", source.replace("/", "--")):
            return Path(_run("workers.import_model.hub", source, home / "models"))
    fault = "is none of these" if _is(path.exists) or not path.is_absolute() else "does not exist"
    raise UserError(
        "The source must be the absolute path of a folder or GGUF file, or a hub id like org/name. "
        f"{source!r} {fault}.",
        param="source",
    )


def facts_of(folder: Path, home: Path) -> ModelFacts:
    """Return the facts of a folder, with what its architecture does not allow. Raises UserError for what is wrong with
    the folder. Confined child processes find both out.

    A folder that has not changed since this process asked last is not read again. What an architecture allows is kept
    under `home`/models.
    """
    facts, twin, architecture = _inspected(folder, _stamp(folder))
    return facts if twin is None else with_capabilities(facts, twin, architecture, home / "models")


@lru_cache(maxsize=256)
def _inspected(folder: Path, stamp: frozenset[tuple[object, ...]]) -> tuple[ModelFacts, dict[str, Any] | None, str]:
    """`stamp`: part of the cache key, so that a changed folder is read again. Errors are not kept."""
    found = confined.ask("workers.import_model.inspect_model", {"folder": str(folder)}, param="source")
    return ModelFacts.model_validate(found["facts"]), found["twin"], found["architecture"]


def _stamp(folder: Path) -> frozenset[tuple[object, ...]]:
    """Return the name, place, size and times of each file of a model; of a link, those of its target if it has one."""
    found: set[tuple[object, ...]] = set()
    for file in (file for pattern in READ for file in folder.glob(pattern)):
        try:
            status = file.stat()
        except OSError:  # a broken link, or gone meanwhile
            found.add((str(file),))
        else:
            found.add((str(file), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return frozenset(found)


def _is(question: Callable[[], bool]) -> bool:
    """Return the answer about a path; no for a path that the system does not accept, such as one that is too long."""
    try:
        return question()
    except OSError:
        return False


def _converted(gguf: Path, models: Path) -> Path:
    try:
        with gguf.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{gguf} cannot be read: {error.strerror}", param="source") from error
    folder = models / f"{gguf.stem}-{digest[:12]}"
    with _lock(models, folder.name):
        if not folder.exists():
            _run("workers.import_model.gguf", gguf, folder)
    return folder


def _lock(models: Path, name: str) -> FileLock:
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
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise UserError(f"The process that imports {arguments[0]} was ended by {name}.", param="source")
    if done.returncode:
        raise LuthierError(f"{module} failed with exit code {done.returncode}. Its standard error has the details.")
    return said
