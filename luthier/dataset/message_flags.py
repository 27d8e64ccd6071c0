"""Flags on messages that other programs do not train on: they become a `weight` of 0.

Only names whose meaning is plain are read: of `mask` or `label` nobody knows whether true or false is trained on.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from luthier.dataset.errors import unexpected
from luthier.dataset.rows import Row
from luthier.errors import DatasetError

_TRAINED: Final = frozenset(  # false means a weight of 0: of Axolotl, ms-swift, slime and others, without their marks
    {
        *("train", "trained", "training", "trainable", "istrained", "istrainable", "shouldtrain"),
        *("trainon", "trainonturn", "trainonmessage", "learn", "supervise", "supervised", "istarget"),
        *("loss", "lossscale", "lossmask", "steplossmask", "computeloss", "calculateloss", "useloss", "inloss"),
    }
)
_MASKED: Final = frozenset(  # true means a weight of 0: of torchtune and others
    {
        *("masked", "ismasked", "ignore", "ignored", "isignored", "ignoreloss", "noloss", "skiploss", "maskloss"),
        *("skip", "skipped", "skiptraining", "notrain", "donttrain", "donottrain", "nolearn"),
        *("exclude", "excluded", "excludefromloss", "excludefromtraining"),
    }
)
_PARTS: Final = ("train_detail", "training_detail")  # of Axolotl: which characters are trained on
_MARKS: Final = re.compile(r"[\W_]+")


def weighted(message: Row, field: str) -> Row:
    """Return a message with a weight of 0 if any of its flags says that it is not trained on, and without the flags.

    Raises DatasetError for a flag that is neither true nor false, for one that contradicts the weight, and for one
    that is about a part of the message.
    """
    for name in _PARTS:
        if message.get(name):
            raise DatasetError(
                f"field `{field}.{name}`: a message is trained on as a whole or not at all; leave `{name}` out, or set "
                "the message's `weight` to 0"
            )
    off = flagged(message, field, trained=False)
    rest = {name: value for name, value in message.items() if _meaning(name) is None and name not in _PARTS}
    if off and rest.get("weight") not in (None, 0):
        raise DatasetError(f"field `{field}`: its `weight` and `{off[0]}` contradict each other")
    return rest | {"weight": 0} if off else rest


def flagged(message: Row, field: str, *, trained: bool) -> list[str]:
    """Return the flags of a message that say that it is trained on, or is not. Raises DatasetError for other values."""
    found = []
    for name, value in message.items():
        meaning = _meaning(name)
        if meaning is None or value is None:
            continue
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise unexpected(f"{field}.{name}", "true or false", value)
        if (bool(value) is meaning) is trained:
            found.append(name)
    return found


@lru_cache(maxsize=1_024)
def _meaning(name: str) -> bool | None:
    """Return whether a flag of this name means that the message is trained on if it is true; None for no such flag."""
    letters = _MARKS.sub("", name).lower()
    return True if letters in _TRAINED else False if letters in _MASKED else None
