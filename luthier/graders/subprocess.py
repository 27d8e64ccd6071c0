"""A process that answers questions of graders, and can be ended where a question takes too much."""

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
    """A Python process that answers each line with a line. It is started when it is first needed, and again after it
    has ended. Thread-safe: one question at a time.
    """

    def __init__(self, grader: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """`arguments` are the interpreter's; an `environment` of None is this process's own."""
        self._grader = grader
        self._arguments = arguments
        self._environment = environment
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: Any) -> str:
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
                    raise LuthierError(f"the process behind the grader `{self._grader}` failed (exit code {code})")
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
