"""Processes that do something at the same moment."""

import os
import subprocess
import sys
from typing import Any

_START = "import sys; print('ready', flush=True); sys.stdin.readline()\n"


def run_together(imports: str, script: str, *arguments: tuple[str, ...]) -> list[str]:
    """Run `script` in one process for each tuple of arguments; all begin once all have done their `imports`.

    Answers with what each has printed; they must all succeed.
    """
    command = [sys.executable, "-P", "-c", f"{imports}\n{_START}{script}"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    started = [subprocess.Popen([*command, *each], text=True, cwd=os.sep, **pipes) for each in arguments]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate() for process in started]
    assert [(process.returncode, errors) for process, (_, errors) in zip(started, results, strict=True)] == [
        (0, "") for _ in started
    ]
    return [printed for printed, _ in results]
