"""A child process that answers questions, such as those of a grader, and is restarted when a question kills it."""

from __future__ import annotations

import atexit
import json
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Timer
from typing import Any

from luthier.child_process import ChildProcess
from luthier.errors import LuthierError


class Child:
    """A process that answers each line with a line. It starts on first use, and again after it has ended.

    Thread-safe: one question at a time.
    """

    def __init__(self, name: str, start: Callable[[], ChildProcess], seconds: float) -> None:
        """`name` is for errors. `start` starts the process, with pipes for its standard input and output.

        `seconds` is the wall-clock time of a question. The process limits its own CPU time, which a process that waits
        for a file or sleeps never uses up.
        """
        self._name = name
        self._start_process = start
        self._seconds = seconds
        self._lock = Lock()
        self._process: ChildProcess | None = None

    def ask(self, question: Any, seconds: float | None = None) -> str:
        """Return the process's answer, empty if the question killed it. `seconds` replaces the time of a question.

        Raises TimeoutError if the process takes longer and is stopped, or if others keep it busy for so long, and
        LuthierError if it cannot run.
        """
        seconds = self._seconds if seconds is None else seconds
        if not self._lock.acquire(timeout=seconds):
            raise TimeoutError(f"The process `{self._name}` was busy with other questions for {seconds:g} seconds.")
        try:
            if self._process is not None and self._process.poll() is not None:
                self._end()  # it was killed
            process = self._process or self._start()
            answer, late = _exchange(process, json.dumps(question), seconds)
            if answer:
                return answer
            code = process.wait()
            self._end()
        finally:
            self._lock.release()
        if late:
            raise TimeoutError(f"The process `{self._name}` took more than {seconds:g} seconds, and was stopped.")
        if code > 0:
            raise LuthierError(f"The process `{self._name}` failed (exit code {code}).")
        return ""

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


def _exchange(process: ChildProcess, line: str, seconds: float) -> tuple[str, bool]:
    """Return the process's answer to a line, empty if it ended, and whether it was killed as it took too long."""
    assert process.stdin is not None
    assert process.stdout is not None
    late = Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    answer = ""
    try:
        with suppress(BrokenPipeError):  # it was killed before it had read all of the question
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = process.stdout.readline().strip()
        if not answer:
            process.wait()
    finally:
        timer.cancel()
    return answer, late.is_set()
