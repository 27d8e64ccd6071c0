"""A confined child that never answers: it sleeps, is busy, or ends itself, as its question says."""

import os
import signal
import sys
import time

from luthier.models import confined


def work(question: str, step: confined.Step) -> None:
    step(f"Reading the {question}")
    if question.endswith("y"):
        os.kill(os.getpid(), signal.SIGKILL)
    while question.endswith("z"):
        pass
    time.sleep(600)


def main() -> int:
    return confined.answer(work, lambda question: confined.Limits(cpu_seconds=1 if question.endswith("z") else 60))


if __name__ == "__main__":
    sys.exit(main())
