"""From the tokens of an answer to its text, while they come: whole characters only, and nothing of a stop text."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer makes of the first bytes of a character


class Speech:
    """Takes tokens, gives text. `stopped` is set at the first of the `stop` texts, which is not said itself.

    Some tokenizers spell a token otherwise after others than alone. So the new ones are decoded behind some of the old,
    whose text is then taken off.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = stop
        self._ids: list[int] = []
        self._before = self._spelt = 0  # tokens: those only decoded with, and those whose text is known
        self._held = ""  # the end of the text so far, which may be the start of a stop text

    def hear(self, token: int) -> str:
        """The text that is certain now."""
        self._ids.append(token)
        known, text = self._decode(self._ids[self._before : self._spelt]), self._decode(self._ids[self._before :])
        if len(text) <= len(known) or text.endswith(UNFINISHED):
            return ""
        self._before, self._spelt = self._spelt, len(self._ids)
        return self._say(text[len(known) :])

    def end(self) -> str:
        """What was held back until more would come."""
        known, text = self._decode(self._ids[self._before : self._spelt]), self._decode(self._ids[self._before :])
        said = self._say(text[len(known) :])
        rest, self._held = self._held, ""
        return said if self.stopped else said + rest

    def _say(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for at in map(text.find, self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        start = next((at for at in range(len(text)) if any(s.startswith(text[at:]) for s in self._stop)), len(text))
        self._held = text[start:]
        return text[:start]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
