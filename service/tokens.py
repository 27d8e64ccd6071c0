"""Counting tokens without torch: the tokenizer of a registered base model, through the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from luthier.models.base_model import BaseModelEntry


class TokenCounter(NamedTuple):
    model: str
    count: Callable[[str], int]


def counter(entries: Sequence[BaseModelEntry]) -> TokenCounter | None:
    """Counts tokens as the first of the models that lies in a local folder does; None where none does."""
    for entry in entries:
        file = Path(entry.source) / "tokenizer.json"
        if file.is_file():
            return TokenCounter(entry.name, partial(_count, _load(file, file.stat().st_mtime_ns)))
    return None


def _count(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


@lru_cache(maxsize=4)
def _load(file: Path, changed: int) -> Tokenizer:
    """`changed` is the file's time of change, so that a replaced tokenizer is read anew."""
    return Tokenizer.from_file(str(file))
