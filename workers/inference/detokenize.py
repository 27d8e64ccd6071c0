"""Streaming detokenisation: turn tokens into text as they come, in whole characters, up to a stop sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from transformers import PreTrainedTokenizerBase

UNFINISHED: Final = "\N{REPLACEMENT CHARACTER}"  # decoded for an incomplete character


class StreamDecoder:
    """Decodes one answer. `stopped` becomes true at the first stop sequence, which is not part of the text.

    Some tokenizers decode a token differently after others than alone. So new tokens are decoded together with some
    earlier ones, whose text is then removed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = stop
        self._ids: list[int] = []
        self._context = self._decoded = 0  # start of the tokens used as context, and of those not yet decoded
        self._pending = ""  # text withheld because a stop sequence may start in it

    def push(self, token: int) -> str:
        """Add a token. Return the text that is now certain."""
        self._ids.append(token)
        known, text = self._decode(self._ids[self._context : self._decoded]), self._decode(self._ids[self._context :])
        if len(text) <= len(known) or text.endswith(UNFINISHED):
            return ""
        self._context, self._decoded = self._decoded, len(self._ids)
        return self._release(text[len(known) :])

    def end(self) -> str:
        """Return the text that was still withheld."""
        known, text = self._decode(self._ids[self._context : self._decoded]), self._decode(self._ids[self._context :])
        released = self._release(text[len(known) :])
        rest, self._pending = self._pending, ""
        return released if self.stopped else released + rest

    def _release(self, text: str) -> str:
        """Return the text up to a stop sequence, and withhold what may be the start of one."""
        if self.stopped:
            return ""
        text = self._pending + text
        found = [at for at in map(text.find, self._stop) if at >= 0]
        if found:
            self.stopped, self._pending = True, ""
            return text[: min(found)]
        start = next((at for at in range(len(text)) if any(s.startswith(text[at:]) for s in self._stop)), len(text))
        self._pending = text[start:]
        return text[:start]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
