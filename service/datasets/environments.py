"""Environments as the service sees them: a child process that lists them, or makes the rows of a job.

What they import is large, and how long they take is theirs to say; so the child is ended when its time is over.
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
from service.datasets.ingest import take_in

LISTING_SECONDS = 120.0


@cache
def listing() -> tuple[Environment, ...]:
    """What was installed when it was first asked for."""
    return TypeAdapter(tuple[Environment, ...]).validate_json(_run("list", "", LISTING_SECONDS))


def generate(ctx: Context, spec: EnvironmentSpec, seed: int) -> FileRecord:
    """The rows of an environment as a file, not inserted yet. The same ones for the same seed.

    Raises UserError for an unknown name or a wrong option, and where making the rows takes too long.
    """
    order = json.dumps({"environment": spec.model_dump(mode="json"), "seed": seed})
    limit = ctx.settings.generation_seconds
    try:
        rows = _run("rows", order, limit)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"task.environment.rows: {spec.name} has not made {spec.rows} rows in {limit:g} s "
            "(LUTHIER_GENERATION_SECONDS): ask for fewer, or for easier ones in task.environment.options",
            param="task.environment.rows",
        ) from error
    filename = f"{spec.name.replace('/', '-')}-{spec.rows}.jsonl"
    with tempfile.TemporaryDirectory(prefix="luthier-rows-") as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(rows)
        return take_in(ctx, path, filename)


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
                f"task.environment: the process that makes the rows ended with {code}: {''.join(last)}",
                param="task.environment",
            )


def _refusal(error: dict[str, Any]) -> LuthierError:
    """What the child raised. A fault of the environment's own code is for whoever asked for it to put right."""
    kind = tree().get(error["code"], UserError)
    if not issubclass(kind, UserError):
        return UserError(error["message"], param="task.environment")
    return kind(error["message"], param=error["param"])
