"""Format numbers, counts and durations for sentences."""

from __future__ import annotations

import inspect
import re

from luthier.values import Frozen


def about(kind: type[Frozen]) -> str:
    """Return the first sentence of a class's docstring."""
    text = " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].split())
    return re.split(r"(?<!\bal)\. (?=[A-Z])", text)[0].rstrip(".") + "."


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def millions(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"


def seconds(value: float) -> str:
    """Return a duration such as `42 s`, `3 min 10 s` or `2 h 5 min`."""
    whole = round(value)
    if whole < 60:
        return f"{value:.3g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count_of(epochs: float) -> str:
    return f"{epochs:g} epoch{'' if epochs == 1 else 's'}"
