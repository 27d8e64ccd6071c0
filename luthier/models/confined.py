"""Child processes that look at the files of a model, which nobody has checked yet.

A file can be made so that reading it takes forever, fills the memory or ends the process. So the service never parses
the files of a model and never renders its chat template: it asks a child. The child limits its own CPU time, memory,
output and open files, and its parent ends it after a time. It says on its standard output which step it is at, so
that the error of a child that was ended can name what it was reading.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

from huggingface_hub import constants

from luthier import child_process
from luthier.errors import LuthierError, UserError

SECONDS: Final = 50.0  # wall-clock time of a child, below the time that clients wait for a response
CPU_SECONDS: Final = 40
MEMORY_BYTES: Final = 4 * 2**30
OUTPUT_BYTES: Final = 64 * 2**20
OPEN_FILES: Final = 256
ERROR_CHARACTERS: Final = 600
LOOK_SECONDS: Final = 0.2  # between two looks at the steps of a child
# No network, and one thread.
_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAYON_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}

Step = Callable[[str], None]


def silent(step: str) -> None:
    """Take no notice of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a child may use: CPU time in seconds, bytes of addresses, and bytes of each file that it writes."""

    cpu_seconds: int = CPU_SECONDS
    memory_bytes: int = MEMORY_BYTES
    file_bytes: int = OUTPUT_BYTES


def ask(module: str, question: Any, *, param: str, seconds: float = SECONDS, step: Step = silent) -> Any:
    """Run a module, whose `main` calls `answer`, in a child process; return its answer to the question.

    `step` is called with each step that the child begins. Raises UserError with `param` where the child refuses the
    files, or has to be ended because of them; LuthierError where the child itself is broken.
    """
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as replies, tempfile.TemporaryFile() as errors:
        asked.write(json.dumps(question).encode())
        asked.seek(0)
        child = child_process.start(
            module, stdin=asked, stdout=replies, stderr=errors, environment=os.environ | _ENVIRONMENT
        )
        try:
            code = _watched(child, replies, seconds, step)
        finally:
            child.kill()
            child.wait()
        said = _lines(replies)
        match code:
            case 0 if said and "answer" in said[-1]:
                return said[-1]["answer"]
            case 0 if said and "refused" in said[-1]:
                raise UserError(said[-1]["refused"], param=param)
            case None:
                raise UserError(f"{_step(said)} took more than {seconds:g} seconds, and was stopped.", param=param)
            case code if code < 0:
                raise UserError(f"{_step(said)} {_ended_by(-code)}.", param=param)
            case _:
                errors.seek(max(0, errors.seek(0, os.SEEK_END) - ERROR_CHARACTERS))
                last = errors.read().decode(errors="replace").strip()
                raise LuthierError(f"{module} failed with exit code {code}: {last}")


def answer(work: Callable[[Any, Step], Any], limits: Callable[[Any], Limits] = lambda question: Limits()) -> int:
    """Answer the question on standard input: the main function of a child. `work` says which step it begins.

    `limits` returns what the question may use. Every fault of `work` is one of the files: the answer is then a refusal
    that names the step.
    """
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries must not print into the replies
    question = json.load(sys.stdin)
    constants.HF_HUB_OFFLINE = True  # the variable of the environment is read at import
    allowed = limits(question)
    _limit(allowed)
    at = "Reading it"

    def reply(kind: str, value: Any) -> None:
        replies.write(json.dumps({kind: value}) + "\n")
        replies.flush()

    def step(name: str) -> None:
        nonlocal at
        at = name
        reply("step", name)

    try:
        reply("answer", work(question, step))
    except UserError as error:
        reply("refused", error.message)
    except MemoryError:
        reply("refused", f"{at} needs more than {allowed.memory_bytes >> 30} GiB of memory.")
    except BaseException as error:  # panics of the tokenizers library are no Exception
        traceback.print_exc()
        reply("refused", f"{at} failed: {describe(error)}")
    return 0


@contextlib.contextmanager
def limited_step(cpu_seconds: float) -> Iterator[None]:
    """End this process if the step takes more CPU time. The system ends it, even inside of a library's call."""
    handler = signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)


def describe(error: BaseException) -> str:
    """Return the error in one line of limited length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:ERROR_CHARACTERS] if text else type(error).__name__


def _watched(child: child_process.ChildProcess, replies: IO[bytes], seconds: float, step: Step) -> int | None:
    """Wait for the child, and pass on its steps. Return its exit code, None if it takes more than `seconds`."""
    deadline, told = time.monotonic() + seconds, 0
    code: int | None = None
    while code is None and (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = child.wait(min(left, LOOK_SECONDS))
        steps = [str(line["step"]) for line in _lines(replies) if "step" in line]
        for each in steps[told:]:
            step(each)
        told = len(steps)
    return code


def _limit(limits: Limits) -> None:
    child_process.limit_memory(limits.memory_bytes)
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _lines(replies: IO[bytes]) -> list[dict[str, Any]]:
    """Return the complete lines that the child wrote so far; the last one may be cut off."""
    written = os.pread(replies.fileno(), OUTPUT_BYTES, 0)  # the child writes where this descriptor stands
    return [json.loads(line) for line in written.splitlines(keepends=True) if line.endswith(b"\n")]


def _step(said: list[dict[str, Any]]) -> str:
    return next((str(line["step"]) for line in reversed(said) if "step" in line), "Reading the model")


def _ended_by(number: int) -> str:
    if number in (signal.SIGPROF, signal.SIGXCPU):
        return "took too much CPU time, and was stopped"
    return f"ended its process ({signal.Signals(number).name}), probably because it needs too much memory"
