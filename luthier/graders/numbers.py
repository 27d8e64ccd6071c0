"""Comparing numbers: `number` looks at the last number of a text, as solutions of arithmetic problems end with it."""

from __future__ import annotations

import re
from typing import Final

# A sign counts where nothing stands before it that it could be subtracted from; digits of a word (H2O) do not count.
_NUMBER: Final = re.compile(
    r"(?:(?<![A-Za-z0-9_.)])[-+−])?(?<![A-Za-z0-9_.])"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d+)?"
)


def last_number(text: str) -> float | None:
    """The last number of a text; commas between groups of three digits are read over. None where there is none."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace("−", "-")) if found else None


def close(given: float, reference: float, tolerance: float) -> bool:
    """Whether two numbers differ by no more than `tolerance`, or that share of the reference where it is above 1."""
    return abs(given - reference) <= tolerance * max(1.0, abs(reference))
