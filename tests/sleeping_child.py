"""A confined child that never answers: it sleeps, or ends itself, as its question says."""

import os
import signal
import sys
import time

from luthier.models import confined


def work(question: str, step: confined.Step) -> None:
    step(f"Reading the {question}")
    if question.endswith("y"):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def main() -> int:
    return confined.answer(work)


if __name__ == "__main__":
    sys.exit(main())
