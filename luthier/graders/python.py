"""OpenAI's `python` grader: the user's `grade(sample, item)`, run by `luthier.graders.sandbox` and nowhere else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from luthier.errors import GraderFault
from luthier.graders import sandbox
from luthier.graders.subprocess import Child

CPU_SECONDS: Final = 5
SECONDS: Final = 30.0
MEMORY_BYTES: Final = 2**30

# There are no threads in there: libraries that would start one for each core are told so.
_ENVIRONMENT: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_sandbox: Final = Child("python", "-I", str(Path(sandbox.__file__).absolute()), environment=_ENVIRONMENT)


def load(source: str) -> None:
    """Check that the source runs and has a function `grade`. Raises GraderFault where not."""
    _ask(source, None, None)


def run(source: str, *, item: Mapping[str, Any], sample: Mapping[str, Any]) -> float:
    """The grade, a finite number. Raises GraderFault: `python_grader_runtime_error` for what the code does,
    `python_grader_server_error` where it cannot be run in isolation.
    """
    grade = _ask(source, dict(sample), dict(item)).get("grade")
    if not isinstance(grade, int | float) or not math.isfinite(grade):
        raise _fault("the code wrote to where its grade belongs")
    return float(grade)


def _ask(source: str, sample: dict[str, Any] | None, item: dict[str, Any] | None) -> dict[str, Any]:
    limits = {"cpu_seconds": CPU_SECONDS, "seconds": SECONDS, "memory_bytes": MEMORY_BYTES}
    line = _sandbox.ask({"source": source, "sample": sample, "item": item, **limits})
    answer: dict[str, Any] = json.loads(line) if line else {"error": "its process was ended from outside"}
    if "refused" in answer:
        raise GraderFault(
            "python graders run only where Linux namespaces isolate them, which this machine does not allow "
            f"({answer['refused']}); use another grader, or a machine with unprivileged user namespaces",
            kind="python_grader_server_error",
            param="type",
        )
    if "error" in answer:
        raise _fault(str(answer["error"]))
    return answer


def _fault(what: str) -> GraderFault:
    return GraderFault(f"the grader's code failed: {what}", kind="python_grader_runtime_error", param="source")
