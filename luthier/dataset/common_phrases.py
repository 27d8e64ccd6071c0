"""Find phrases that stand before or after many prompts which the file also has without them: `Hi, `, ` Please answer.`

In a template, such as `What is the capital of …?`, two prompts with the same value differ by as much as prompts with
two values do, once one of them is politer. So no similarity tells them apart; the phrase does.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

_END: Final = re.compile(r"[.,;:!?…]+\s+|\s+[—–-]\s+")  # of a clause
_MARKS: Final = " \t\n.,;:!?…\"'—–-"
_CLAUSES: Final = 4  # at each end of a prompt
_LONGEST: Final = 200  # characters of a phrase
_SHORTEST: Final = 8  # characters of a prompt without it
_PROMPTS: Final = 3  # that have a phrase at least, and are in the file without it
_DIGIT: Final = re.compile(r"\d")

Cut = tuple[str, bool, str]  # a phrase, whether it is at the end, and the prompt without it


def same_but_for_phrases(texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield the places of folded texts that are the same but for phrases at their ends.

    A phrase is divided from the prompt by a punctuation mark, and contains no number.
    """
    plain = [text.strip(_MARKS) for text in texts]
    known = set(plain)
    without: defaultdict[tuple[str, bool], set[str]] = defaultdict(set)
    for text in known:
        for phrase, at_end, rest in _cuts(text):
            if rest in known:
                without[phrase, at_end].add(rest)
    phrases = {phrase for phrase, rests in without.items() if len(rests) >= _PROMPTS}
    if not phrases:
        return
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(plain):
        places[_core(text, phrases)].append(place)
    yield from (same for same in places.values() if len(same) > 1)


def _core(text: str, phrases: set[tuple[str, bool]]) -> str:
    """Return a text without the phrases at its ends."""
    while (rest := next((rest for phrase, end, rest in _cuts(text) if (phrase, end) in phrases), None)) is not None:
        text = rest
    return text


def _cuts(text: str) -> Iterator[Cut]:
    """Yield the phrases at the ends of a text, each with what is left."""
    ends = list(_END.finditer(text))
    for end in ends[:_CLAUSES]:
        phrase, rest = text[: end.start()], text[end.end() :].strip(_MARKS)
        if len(phrase) <= _LONGEST and len(rest) >= _SHORTEST and not _DIGIT.search(phrase):
            yield phrase.strip(_MARKS), False, rest
    for end in ends[-_CLAUSES:]:
        rest, phrase = text[: end.start()].strip(_MARKS), text[end.end() :]
        if len(phrase) <= _LONGEST and len(rest) >= _SHORTEST and not _DIGIT.search(phrase):
            yield phrase.strip(_MARKS), True, rest
