"""OpenAI's `python` grader: the user's `grade(sample, item)`, run only by `luthier.graders.sandbox`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from luthier.errors import GraderFault
from luthier.graders import sandbox
from luthier.graders.subprocess import Child

CPU_SECONDS: Final = 5
SECONDS: Final = 30.0  # wall-clock time that the sandbox gives a grade
SANDBOX_SECONDS: Final = 2 * SECONDS  # of the sandbox itself
MEMORY_BYTES: Final = 2**30

# The sandbox allows no threads, so numerical libraries must not start any.
_ENVIRONMENT: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", str(Path(sandbox.__file__).absolute())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_ENVIRONMENT,
        text=True,
        encoding="utf-8",
    )


_sandbox: Final = Child("python", _start, SANDBOX_SECONDS)


def load(source: str) -> None:
    """Check that the source runs and has a function `grade`. Raises GraderFault if not."""
    _ask(source, None, None)


def run(source: str, *, item: Mapping[str, Any], sample: Mapping[str, Any]) -> float:
    """Return the grade, a finite number.

    Raises GraderFault: `python_grader_runtime_error` for errors of the code, `python_grader_server_error` if it cannot
    be isolated.
    """
    grade = _ask(source, dict(sample), dict(item)).get("grade")
    if not isinstance(grade, int | float) or not math.isfinite(grade):
        raise _fault("the code wrote to the pipe of its grade")
    return float(grade)


def _ask(source: str, sample: dict[str, Any] | None, item: dict[str, Any] | None) -> dict[str, Any]:
    limits = {"cpu_seconds": CPU_SECONDS, "seconds": SECONDS, "memory_bytes": MEMORY_BYTES}
    try:
        line = _sandbox.ask({"source": source, "sample": sample, "item": item, **limits})
    except TimeoutError as late:
        raise _fault(str(late)) from late
    answer: dict[str, Any] = json.loads(line) if line else {"error": "its process was killed"}
    if "refused" in answer:
        raise GraderFault(
            f"Python graders need Linux namespaces, which this machine does not allow ({answer['refused']}). Use "
            "another grader, or a machine with unprivileged user namespaces.",
            kind="python_grader_server_error",
            param="type",
        )
    if "error" in answer:
        raise _fault(str(answer["error"]))
    return answer


def _fault(what: str) -> GraderFault:
    return GraderFault(f"The grader's code failed: {what}", kind="python_grader_runtime_error", param="source")
