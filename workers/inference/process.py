"""The generation process: `python -P -m workers.inference.process` answers the questions on its standard input.

It holds one model in memory, answers one question after another, and exits at the end of its input. Commands and
answers are JSON objects (messages.py), one per line. The output of libraries goes to standard error.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import queue
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Final, TextIO

import torch
import transformers

from luthier.errors import Infeasible, LuthierError, TrialFailed
from luthier.worker_protocol import Answered, Refusal
from workers.inference.generate import answer
from workers.inference.messages import COMMANDS, Ask, Cancel, Piece
from workers.inference.models import Models

log = logging.getLogger("luthier.generation")

BATCH_SECONDS: Final = 0.1  # between two pieces of an answer


class Commands:
    """Reads commands in a thread, so that a running answer can be cancelled.

    At the end of the input it removes the folder with the weights and exits: the worker may have died without doing so.
    """

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
            match COMMANDS.validate_json(line):
                case Ask() as ask:
                    self.asked.put(ask)
                case Cancel(id=question_id):
                    self._cancelled.add(question_id)
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(0)  # even in the middle of an answer: nobody reads it any more


class AnswerWriter:
    """Writes one answer in pieces, at most one every BATCH_SECONDS."""

    def __init__(self, question_id: str, out: TextIO) -> None:
        self._id = question_id
        self._out = out
        self._text = ""
        self._written_at = 0.0

    def say(self, text: str) -> None:
        self._text += text
        if time.monotonic() - self._written_at >= BATCH_SECONDS:
            self._write(Piece(id=self._id, text=self._text))
            self._text, self._written_at = "", time.monotonic()

    def end(self, end: Answered) -> None:
        self._write(Piece(id=self._id, text=self._text, answer=end))

    def _write(self, piece: Piece) -> None:
        self._out.write(piece.model_dump_json() + "\n")
        self._out.flush()


def serve(commands: Commands, out: TextIO, device: torch.device) -> None:
    """Answer until the input ends."""
    models = Models(device)
    while True:
        ask = commands.asked.get()
        writer = AnswerWriter(ask.id, out)
        writer.end(_answer(models, ask, writer, commands))


def _answer(models: Models, ask: Ask, writer: AnswerWriter, commands: Commands) -> Answered:
    try:
        loaded = models.load(ask.question.weights.base, ask.folder)
        return answer(loaded, ask.question, writer.say, lambda: commands.cancelled(ask.id))
    except LuthierError as error:
        return _refused(error)
    except (torch.OutOfMemoryError, MemoryError) as error:
        return _refused(Infeasible(f"out of memory on {models.device}: {str(error).splitlines()[0]}"))
    except Exception as bug:  # a library may fail in any way; the next question must still get its answer
        log.exception("question %s failed", ask.id)
        return _refused(TrialFailed(f"{ask.question.model} failed to answer: {type(bug).__name__}: {bug}"))


def _refused(error: LuthierError) -> Answered:
    return Answered(refusal=Refusal(code=error.code, message=error.message, param=error.param))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -P -m workers.inference.process", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for torch (default: 1)")
    parser.add_argument("--folder", type=Path, required=True, help="folder for weights; removed at the end")
    options = parser.parse_args()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    gc.freeze()  # the libraries stay: collecting the garbage of a model that goes must not look through them
    serve(Commands(sys.stdin, options.folder), out, device)


if __name__ == "__main__":
    main()
