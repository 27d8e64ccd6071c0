"""Comparing expressions as mathematics does, in a process of its own that can be ended (`luthier.graders.equality`)."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from threading import Lock
from typing import Final

from luthier.errors import GraderFault, LuthierError

MAX_CHARACTERS: Final = 20_000


def equal(given: str, reference: str, float_rounding: int) -> bool:
    """Whether two texts end with the same mathematics. Raises GraderFault where that cannot be said.

    An answer is read from its end: only its last MAX_CHARACTERS count.
    """
    answer = _comparer.ask([given[-MAX_CHARACTERS:], reference[-MAX_CHARACTERS:], float_rounding])
    match answer:
        case "":
            raise GraderFault("the answer and the reference could not be compared within the limits of time and memory")
        case "null":
            raise GraderFault("the reference holds no mathematical expression")
        case _:
            return answer == "true"


class _Comparer:
    """The process, started when it is first needed and again after it has ended. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: list[str | int]) -> str:
        """The process's answer; empty when the question was too much. Raises LuthierError where it cannot run."""
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._end()  # it was ended from outside
            process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline().strip()
            if not answer:
                code = process.wait()
                self._end()
                if code > 0:
                    raise LuthierError(f"the process behind the grader `math` failed (exit code {code})")
            return answer

    def close(self) -> None:
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "luthier.graders.equality"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        atexit.register(self.close)
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_comparer: Final = _Comparer()
