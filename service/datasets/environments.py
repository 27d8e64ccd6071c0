"""Environments run in a child process, which lists them or generates the rows of a job.

They import large packages and may take long: the child is killed after a time limit.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from luthier.api_types import Environment
from luthier.errors import LuthierError, UserError, tree
from luthier.store.rows import FileRecord
from luthier.task import EnvironmentSpec
from service.context import Context
from service.datasets.ingest import ingest

LISTING_SECONDS = 120.0


@cache
def listing() -> tuple[Environment, ...]:
    """Return the installed environments, as of the first call."""
    return TypeAdapter(tuple[Environment, ...]).validate_json(_run("list", "", LISTING_SECONDS))


def generate(ctx: Context, spec: EnvironmentSpec, seed: int) -> FileRecord:
    """Return the rows of an environment as a file that is not inserted yet. The same seed gives the same rows.

    Raises UserError for an unknown name or a wrong option, and where generating the rows takes too long.
    """
    order = json.dumps({"environment": spec.model_dump(mode="json"), "seed": seed})
    limit = ctx.settings.generation_seconds
    try:
        rows = _run("rows", order, limit)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"task.environment.rows: {spec.name} did not generate {spec.rows} rows within {limit:g} s "
            "(LUTHIER_GENERATION_SECONDS): request fewer rows, or easier ones in task.environment.options",
            param="task.environment.rows",
        ) from error
    filename = f"{spec.name.replace('/', '-')}-{spec.rows}.jsonl"
    with tempfile.TemporaryDirectory(prefix="luthier-rows-") as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(rows)
        return ingest(ctx, path, filename)


def _run(command: str, order: str, seconds: float) -> bytes:
    child = subprocess.run(
        [sys.executable, "-P", "-m", "luthier.environments", command],
        input=order.encode(),
        capture_output=True,
        timeout=seconds,
        check=False,
    )
    match child.returncode:
        case 0:
            return child.stdout
        case 2 if child.stdout:
            raise _refusal(json.loads(child.stdout)["error"])
        case code:
            last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise UserError(
                f"task.environment: the process that generates the rows exited with code {code}: {''.join(last)}",
                param="task.environment",
            )


def _refusal(error: dict[str, Any]) -> LuthierError:
    """Return the error that the child raised. Any fault of the environment's own code is the user's to fix."""
    kind = tree().get(error["code"], UserError)
    if not issubclass(kind, UserError):
        return UserError(error["message"], param="task.environment")
    return kind(error["message"], param=error["param"])
