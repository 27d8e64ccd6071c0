"""The generation process: `python -P -m workers.inference.process` answers what it reads on standard input.

It holds one model in memory, answers one question after another, and ends when its input does. Orders and answers are
JSON objects (messages.py), a line each; what libraries print goes to standard error.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

import torch
import transformers

from luthier.errors import Infeasible, LuthierError, TrialFailed
from luthier.worker_protocol import Answered, Refusal
from workers.inference.generate import answer
from workers.inference.messages import ORDERS, Ask, Cancel, Told
from workers.inference.models import Models

log = logging.getLogger("luthier.generation")

BATCH_SECONDS = 0.1  # between the pieces of an answer


class Orders:
    """Reads the orders while answers are made, so that one can be cancelled. At their end the process ends, and the
    folder with the weights goes: the agent is gone, and perhaps had no time for it."""

    def __init__(self, lines: TextIO, folder: Path) -> None:
        self.asked: queue.SimpleQueue[Ask] = queue.SimpleQueue()
        self._lines = lines
        self._folder = folder
        self._cancelled: set[str] = set()
        threading.Thread(target=self._read, daemon=True).start()

    def cancelled(self, question_id: str) -> bool:
        return question_id in self._cancelled

    def _read(self) -> None:
        for line in self._lines:
            match ORDERS.validate_json(line):
                case Ask() as ask:
                    self.asked.put(ask)
                case Cancel(id=question_id):
                    self._cancelled.add(question_id)
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(0)  # in the middle of an answer that nobody can hear any more


class Mouth:
    """Says one answer in pieces that are not too small."""

    def __init__(self, question_id: str, out: TextIO) -> None:
        self._id = question_id
        self._out = out
        self._text = ""
        self._said_at = 0.0

    def say(self, text: str) -> None:
        self._text += text
        if time.monotonic() - self._said_at >= BATCH_SECONDS:
            self._tell(Told(id=self._id, text=self._text))
            self._text, self._said_at = "", time.monotonic()

    def end(self, end: Answered) -> None:
        self._tell(Told(id=self._id, text=self._text, answer=end))

    def _tell(self, told: Told) -> None:
        self._out.write(told.model_dump_json() + "\n")
        self._out.flush()


def serve(orders: Orders, out: TextIO, device: torch.device) -> None:
    """Answer until the input ends."""
    models = Models(device)
    while True:
        ask = orders.asked.get()
        mouth = Mouth(ask.id, out)
        mouth.end(_answer(models, ask, mouth, orders))


def _answer(models: Models, ask: Ask, mouth: Mouth, orders: Orders) -> Answered:
    try:
        loaded = models.load(ask.question.weights.base, ask.folder)
        return answer(loaded, ask.question, mouth.say, lambda: orders.cancelled(ask.id))
    except LuthierError as error:
        return _refused(error)
    except (torch.OutOfMemoryError, MemoryError) as error:
        return _refused(Infeasible(f"out of memory on {models.device}: {str(error).splitlines()[0]}"))
    except Exception as bug:  # whatever a model makes a library do must not cost the next question its answer
        log.exception("question %s failed", ask.id)
        return _refused(TrialFailed(f"{ask.question.model} could not answer: {type(bug).__name__}: {bug}"))


def _refused(error: LuthierError) -> Answered:
    return Answered(refusal=Refusal(code=error.code, message=error.message, param=error.param))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -P -m workers.inference.process", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for torch (default: 1)")
    parser.add_argument("--folder", type=Path, required=True, help="where weights are put; removed at the end")
    options = parser.parse_args()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    serve(Orders(sys.stdin, options.folder), out, device)


if __name__ == "__main__":
    main()
