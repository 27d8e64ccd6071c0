"""Sources of base models: a folder, a GGUF file or a hub id. Each becomes a folder of safetensors.

Child processes of `workers` convert and download, because that needs torch or a network, and takes minutes. Results are
cached under the home. Another child checks the folder and reads its facts.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from luthier.errors import LuthierError, UserError
from luthier.models import confined
from luthier.models.base_model import ModelFacts
from luthier.models.capabilities import untried, with_capabilities
from luthier.models.confined import Step, silent
from luthier.models.model_files import part_of

READ: Final = ("*.json", "*.jinja", "*.safetensors", "*.txt", "*.model", "*/*.jinja")  # the files of a model
HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w.-]+)?")
COMPARISON_SECONDS: Final = 180.0  # of all shapes of the weights; a large model takes seconds
CONVERSION_SECONDS: Final = 300.0  # for any GGUF file, and more for each byte of it
CONVERTED_PER_SECOND: Final = 2_000_000  # bytes of a GGUF file, on a slow machine


log = logging.getLogger(__name__)


def local_folder(source: str, home: Path, step: Step = silent) -> Path:
    """Return the folder of the model; converted and downloaded ones are under `home`/models.

    `step` is called with what is done. Raises UserError naming the source and what is wrong with it.
    """
    path = Path(source)
    if path.is_absolute():
        if _is(path.is_dir):
            return path
        if path.suffix == ".gguf" and _is(path.is_file):
            return _converted(path, home / "models", step)
    elif HUB_ID.fullmatch(source):
        step(f"Downloading {source}")
        with _lock(home / "models", source.replace("/", "--")):
            return Path(_run("workers.import_model.hub", source, home / "models"))
    fault = "is none of these" if _is(path.exists) or not path.is_absolute() else "does not exist"
    raise UserError(
        "The source must be the absolute path of a folder or GGUF file, or a hub id like org/name. "
        f"{source!r} {fault}.",
        param="source",
    )


def facts_of(folder: Path, home: Path, step: Step = silent) -> ModelFacts:
    """Return the facts of a folder, with what its architecture does not allow. Raises UserError for what is wrong with
    the folder. Confined child processes find both out. `step` is called with each step of theirs.

    A folder that has not changed since this process asked last is not read again. What an architecture allows is kept
    under `home`/models.
    """
    found = _inspected(folder, step)
    if found.twin is None:
        return untried(found.facts, f"there is no tiny model of its kind: {found.untwinned}")
    return with_capabilities(found.facts, found.twin, found.architecture, home / "models", step, source=folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inspected:
    """What was found in a folder whose files had this stamp. `twin`: the config of a tiny model, None without one;
    `untwinned` says why then."""

    stamp: frozenset[tuple[object, ...]]
    facts: ModelFacts
    twin: dict[str, Any] | None
    architecture: str
    untwinned: str


_inspections: Final[dict[Path, _Inspected]] = {}


def _inspected(folder: Path, step: Step) -> _Inspected:
    """Check the folder and read its facts, if it has changed since the last time. Raises UserError."""
    stamp = _stamp(folder)
    kept = _inspections.get(folder)
    if kept is not None and kept.stamp == stamp:
        return kept
    read = confined.ask("workers.import_model.inspect_model", {"folder": str(folder)}, param="source", step=step)
    _check_weights(folder, step)
    found = _Inspected(
        stamp=stamp,
        facts=ModelFacts.model_validate(read["facts"]),
        twin=read["twin"],
        architecture=read["architecture"] or "",
        untwinned=read["untwinned"] or "",
    )
    _inspections[folder] = found
    return found


def _check_weights(folder: Path, step: Step) -> None:
    """Raise UserError, with the tensor and both shapes, if the weights do not fit the configuration.

    Where they cannot be compared within the limits, they are not refused.
    """
    question = {"folder": str(folder)}
    try:
        misfit = confined.ask(
            "workers.import_model.weights", question, param="source", seconds=COMPARISON_SECONDS, step=step
        )
    except LuthierError as error:
        log.warning("the weights of %s could not be compared with its configuration: %s", folder, error.message)
        return
    if misfit is not None:
        raise UserError(f"{folder} {misfit}.", param="source")


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


def conversion_seconds(size: int) -> float:
    """Return the wall-clock time, and the CPU time, that the conversion of a GGUF file of so many bytes may take."""
    return CONVERSION_SECONDS + size / CONVERTED_PER_SECOND


def _converted(gguf: Path, models: Path, step: Step) -> Path:
    try:
        with gguf.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        seconds = conversion_seconds(gguf.stat().st_size)
    except OSError as error:
        raise UserError(f"{gguf} cannot be read: {error.strerror}", param="source") from error
    folder = models / f"{gguf.stem}-{digest[:12]}"
    with _lock(models, folder.name):
        if not folder.exists():
            question = {"gguf": str(gguf), "folder": str(folder)}
            try:
                confined.ask("workers.import_model.gguf", question, param="source", seconds=seconds, step=step)
            finally:
                shutil.rmtree(part_of(folder), ignore_errors=True)  # of a child that was ended
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
