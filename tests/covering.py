"""The part of a product of choices that `make test` tries. `make test-all` tries all of it.

The rule: each item names what it proves, and `make test` tries as few items as prove all that any of them proves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def covering(items: Iterable[T], proves: Callable[[T], set[str]]) -> list[T]:
    """Return items that prove all that any item proves: again and again the one that adds most, the first of equals."""
    every = list(items)
    left = set().union(*map(proves, every))
    found: list[T] = []
    while left:
        best = max(every, key=lambda item: len(proves(item) & left))
        found.append(best)
        left -= proves(best)
    return [item for item in every if item in found]


def params(items: Iterable[T], proves: Callable[[T], set[str]], name: Callable[[T], str] = str) -> list[Any]:
    """Return the items as parameters of a test. Those outside the covering set are marked `slow`."""
    every = list(items)
    chosen = {name(item) for item in covering(every, proves)}
    return [pytest.param(item, id=name(item), marks=() if name(item) in chosen else pytest.mark.slow) for item in every]


def proved_by(algorithm: str, update: str, edit: str = "") -> set[str]:
    """What training a design proves: an algorithm works with LoRA, an update works with sft, or an edit works."""
    if edit:
        return {edit}
    with_lora = {f"{algorithm} with lora"} if update == "lora" else set()
    with_sft = {f"sft with {update}"} if algorithm == "sft" else set()
    return with_lora | with_sft
