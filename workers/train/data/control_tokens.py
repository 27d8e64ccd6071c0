"""Special tokens in the text of a message: they are text, and must not end a turn or begin one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from transformers import PreTrainedTokenizerBase

_PRIVATE: Final = 0xF0000  # the first character of Unicode's supplementary private use area


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of a rendered text, and where it starts. `spelt`: a control token that a message spells as text."""

    text: str
    start: int
    spelt: bool


class ControlTokens:
    """The special tokens of a tokenizer, hidden in messages so that a message cannot end a turn by spelling one.

    A hidden token is a run of one private character, as long as the token, so that offsets stay the same.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        tokens = {str(token) for token in tokenizer.added_tokens_decoder.values() if getattr(token, "special", False)}
        self.tokens: Final = sorted(tokens | {str(token) for token in tokenizer.all_special_tokens}, key=len)[::-1]
        hidden = [chr(_PRIVATE + i) * len(token) for i, token in enumerate(self.tokens)]
        self._shown: Final = dict(zip(hidden, self.tokens, strict=True))
        self._hidden: Final = dict(zip(self.tokens, hidden, strict=True))
        self._spelt: Final = re.compile("|".join(map(re.escape, self.tokens)) or "(?!)")
        self._runs: Final = re.compile("|".join(hidden) or "(?!)")

    def hide(self, value: Any) -> Any:
        """Return a message, or any part of one, with its control tokens hidden."""
        match value:
            case str():
                return self._spelt.sub(lambda found: self._hidden[found[0]], value)
            case list() | tuple():
                return [self.hide(item) for item in value]
            case Mapping():
                return {key: self.hide(item) for key, item in value.items()}
            case _:
                return value

    def show(self, text: str) -> str:
        """Return a text with its control tokens as they are spelt."""
        return self._runs.sub(lambda found: self._shown[found[0]], text)

    def pieces(self, text: str) -> list[Piece]:
        """Divide a rendered text into hidden control tokens, spelt again, and what lies between them."""
        found: list[Piece] = []
        at = 0
        for run in self._runs.finditer(text):
            if run.start() > at:
                found.append(Piece(text=text[at : run.start()], start=at, spelt=False))
            found.append(Piece(text=self._shown[run[0]], start=run.start(), spelt=True))
            at = run.end()
        if at < len(text) or not found:
            found.append(Piece(text=text[at:], start=at, spelt=False))
        return found

    def without(self, text: str) -> str:
        """Return a rendered text without its control tokens."""
        return self._spelt.sub("", text)

    def first(self, text: str) -> str:
        """Return the first control token of a text; empty if it has none."""
        return next(iter(self.all(text)), "")

    def all(self, text: str) -> list[str]:
        """Return the control tokens of a text, in order."""
        return self._spelt.findall(text)
