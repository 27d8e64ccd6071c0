"""A child process that answers the questions of a grader, and is restarted when a question kills it."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from collections.abc import Mapping
from threading import Lock
from typing import Any

from luthier.errors import LuthierError


class Child:
    """A Python process that answers each line with a line. It starts on first use, and again after it has ended.

    Thread-safe: one question at a time.
    """

    def __init__(self, grader: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """`arguments` are those of the interpreter; `environment` None inherits that of this process."""
        self._grader = grader
        self._arguments = arguments
        self._environment = environment
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: Any) -> str:
        """Return the process's answer, empty if the question killed it. Raises LuthierError if it cannot run."""
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._end()  # it was killed
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
                    raise LuthierError(f"The process `{self._grader}` failed (exit code {code}).")
            return answer

    def close(self) -> None:
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
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
