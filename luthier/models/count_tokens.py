"""Count tokens of texts with a model's tokenizer.json, in a child process: `python -P -m luthier.models.count_tokens`.

The argument is the file. A line of standard input is a list of texts as JSON, and the reply is a list of their numbers
of tokens, without special tokens. The process limits its memory, and its CPU time for each list.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Final

from tokenizers import Tokenizer

from luthier import child_process
from luthier.errors import LuthierError
from luthier.graders.subprocess import Child
from luthier.models import confined

LIST_SECONDS: Final = 30.0  # CPU time of a list, and more for each byte of it
COUNTED_PER_SECOND: Final = 50_000  # bytes of text, by a slow tokenizer on a slow machine
KEPT: Final = 2  # processes that wait for the next texts


class Uncounted(Exception):
    """The tokenizer cannot be loaded any more, or does not come to an end with a text."""


class Counters:
    """A child process for each of the last tokenizers in use. Thread-safe."""

    def __init__(self) -> None:
        self._children: OrderedDict[tuple[Path, int], Child] = OrderedDict()
        self._lock = Lock()

    def count(self, file: Path, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text. Raises Uncounted."""
        try:
            answer = self._child(file).ask(list(texts), 2 * _seconds(texts))
        except (LuthierError, OSError) as error:  # it ended, before or while it was asked
            raise Uncounted(f"{file}: {error}") from error
        if not answer.startswith("["):
            raise Uncounted(f"{file} cannot count the tokens of a text: {answer or 'its process was ended'}")
        found: list[int] = json.loads(answer)
        return found

    def _child(self, file: Path) -> Child:
        try:
            key = (file, file.stat().st_mtime_ns)  # a replaced tokenizer is loaded again
        except OSError as error:
            raise Uncounted(f"{file} cannot be read: {error.strerror}") from error
        with self._lock:
            if key not in self._children:
                start = partial(child_process.piped, "luthier.models.count_tokens", str(file))
                self._children[key] = Child("tokenizer", start, 2 * LIST_SECONDS)
                while len(self._children) > KEPT:
                    self._children.popitem(last=False)[1].close()
            self._children.move_to_end(key)
            return self._children[key]


def _seconds(texts: Sequence[str]) -> float:
    return LIST_SECONDS + sum(map(len, texts)) / COUNTED_PER_SECOND


def main() -> int:
    _, file = sys.argv
    child_process.limit_memory(confined.MEMORY_BYTES)
    tokenizer: Tokenizer | None = None
    for line in sys.stdin:
        texts: list[str] = json.loads(line)
        try:
            with confined.limited_step(_seconds(texts)):
                tokenizer = tokenizer or Tokenizer.from_file(file)
                counts = [len(found.ids) for found in tokenizer.encode_batch(texts, add_special_tokens=False)]
            reply = json.dumps(counts)
        except BaseException as error:  # panics of the tokenizers library are no Exception
            reply = confined.describe(error)
        print(reply, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
