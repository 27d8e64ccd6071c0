"""The process of the grader `math`: compares two expressions per line, until its standard input ends.

Run as `python -m luthier.graders.math_process`. A line is the JSON list [answer, reference, float_rounding]. The reply
is true, false, or null if the reference is not an expression. Computer algebra can run forever or fill the memory, so
the process limits its own CPU time and memory. The parent starts another process when this one dies.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sys
from typing import Any, Final

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from luthier import child_process

CPU_SECONDS: Final = 5.0  # CPU time, so that a busy machine grades like an idle one
MEMORY_BYTES: Final = 4 * 2**30

_MARKED: Final = re.compile(r"\$|\\\(|\\\[|\\boxed")
_WORD: Final = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")


def compare(answer: str, reference: str, float_rounding: int) -> bool | None:
    """Return whether the final expressions are equal; None if the reference has none."""
    expected = _read(reference)
    if not expected:
        return None
    return bool(verify(expected, _read(answer), float_rounding=float_rounding, timeout_seconds=None))


def _read(text: str) -> list[Any]:
    """Parse a text; one without words and LaTeX delimiters is an expression as a whole."""
    text = text.strip()
    if not _MARKED.search(text) and not _WORD.search(text):
        text = f"${text.rstrip('.')}$"
    found: list[Any] = parse(text, [LatexExtractionConfig(), ExprExtractionConfig()], parsing_timeout=None)
    return found


def main() -> None:
    logging.disable()  # an answer that cannot be parsed is not worth a log line
    child_process.limit_memory(MEMORY_BYTES)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes the standard input
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    with contextlib.redirect_stdout(sys.stderr):  # libraries must not print into the replies
        for line in sys.stdin:
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            try:
                equal = compare(*json.loads(line))
            except Exception:  # computer algebra raises errors of all kinds for odd expressions
                equal = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            print(json.dumps(equal), file=answers, flush=True)


if __name__ == "__main__":
    main()
