"""Find chats that begin alike, and texts that continue one another: parts of one of them stand word by word in others.

Many logs have a conversation once after each of its turns. If one of these rows were trained on and another one scored,
the score would measure memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from luthier.dataset.rows import Row, fold, prompt_hash, text_hash
from luthier.task import DataKind

_LARGEST_SHARE: Final = 0.2  # of the prompts, in a group; chats of larger ones are compared for one more round
_LARGE_GROUP: Final = 3
_FEWEST_CHARACTERS: Final = 100  # of a text that another one continues
_ANSWERS: Final = {DataKind.PAIRS: "completion", DataKind.UNPAIRED: "completion", DataKind.PREFERENCE: "chosen"}

_SYSTEM: Final = ("system", "developer")


def same_beginning(rows: Iterable[Row], kind: DataKind) -> dict[str, str]:
    """Return, by the hash of each prompt whose row begins like one of another prompt, the hash that stands for both.

    Chats begin alike if their first question and its answer are the same. If more than a fifth of all prompts begin so,
    as with a greeting, their second question and answer must be the same too, and so on. Texts begin alike if one is
    the beginning of the other.
    """
    if kind is DataKind.TEXT:
        texts = {fold(row["text"]): prompt_hash(row, kind) for row in rows}
        return joined(_continued(texts))
    prompts: set[str] = set()
    chats: list[tuple[str, list[str]]] = []
    for row in rows:
        prompts.add(prompt := prompt_hash(row, kind))
        if rounds := _rounds(row, kind):
            chats.append((prompt, rounds))
    largest = max(_LARGE_GROUP, int(_LARGEST_SHARE * len(prompts)))
    return joined(_alike(chats, largest))


def joined(sets: Iterable[Iterable[str]]) -> dict[str, str]:
    """Return for each name in sets of several the one that stands for it, after sets with a common name are joined."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while (parent := parents.setdefault(name, name)) != name:
            parents[name] = parents[parent]
            name = parent
        return name

    for names in sets:
        first, *others = names
        for other in others:
            parents[root(other)] = root(first)
    members = defaultdict(list)
    for name in parents:
        members[root(name)].append(name)
    groups = [group for group in members.values() if len(group) > 1]
    return {name: stands for group in groups for stands in [min(group, key=text_hash)] for name in group}


def merged(groups: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    """Return groups in which the prompts of both are together."""
    if not others:
        return dict(groups)
    return joined((name, stands) for found in (groups, others) for name, stands in found.items())


def _alike(chats: Sequence[tuple[str, list[str]]], largest: int) -> Iterator[set[str]]:
    """Yield the prompts of chats that begin alike, for as many rounds as make a group not too large."""
    groups: defaultdict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    for prompt, (first, *others) in chats:
        groups[first].append((prompt, others))
    for group in groups.values():
        prompts = {prompt for prompt, _ in group}
        if 1 < len(prompts) <= largest:
            yield prompts
        elif len(prompts) > 1:
            yield from _alike([(prompt, rounds) for prompt, rounds in group if rounds], largest)


def _rounds(row: Row, kind: DataKind) -> list[str]:
    """Return the hashes of what is said until each answer of the assistant, with it; system messages do not count."""
    said = row["messages"] if kind is DataKind.CHAT else row["prompt"]
    if not isinstance(said, list):
        return []
    answer = row.get(_ANSWERS[kind]) if kind in _ANSWERS else None
    turns = [turn for turn in (*said, *(answer if isinstance(answer, list) else ())) if turn["role"] not in _SYSTEM]
    rounds, text = [], ""
    for turn in turns:
        text += f"\n{turn['role']}: {fold(turn['content'])} {turn.get('tool_calls') or ''}"
        if turn["role"] == "assistant":
            rounds.append(text_hash(text))
            text = ""
    return rounds


def _continued(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the prompts of each text and of the longest text that it continues."""
    begun: list[str] = []  # each continues the one before it
    for text in sorted(texts):
        while begun and not (text.startswith(begun[-1]) and not text[len(begun[-1])].isalnum()):
            begun.pop()
        if begun:
            yield texts[begun[-1]], texts[text]
        if len(text) >= _FEWEST_CHARACTERS:
            begun.append(text)
