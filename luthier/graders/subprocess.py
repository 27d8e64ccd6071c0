"""A child process that answers questions, such as those of a grader, and is restarted when a question kills it."""

from __future__ import annotations

import atexit
import json
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any

from luthier.child_process import ChildProcess
from luthier.errors import LuthierError


class Child:
    """A process that answers each line with a line. It starts on first use, and again after it has ended.

    Thread-safe: one question at a time.
    """

    def __init__(self, name: str, start: Callable[[], ChildProcess]) -> None:
        """`name` is for errors. `start` starts the process, with pipes for its standard input and output."""
        self._name = name
        self._start_process = start
        self._lock = Lock()
        self._process: ChildProcess | None = None

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
                    raise LuthierError(f"The process `{self._name}` failed (exit code {code}).")
            return answer

    def close(self) -> None:
        with self._lock:
            self._end()

    def _start(self) -> ChildProcess:
        self._process = self._start_process()
        atexit.register(self.close)
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                with suppress(BrokenPipeError):  # what the process has not read
                    stream.close()
            self._process = None
