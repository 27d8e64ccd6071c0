"""docs/search.md names every field that steers a search, with its default."""

import re
from fractions import Fraction
from pathlib import Path

import pytest

from luthier.task import Search
from luthier.trial import (
    FIRST_RUNG_ROWS,
    FIRST_RUNG_SHARE,
    LEAST_RUNG_ROWS,
    RUNG_FACTOR,
    RUNG_GENERATIONS,
    RUNG_PAIRS,
    RUNG_ROWS,
    RUNGS,
    first_rung,
)
from luthier.updates import Full
from tests.unit.report_samples import design, self_ending

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text("utf-8")
NOTHING = {"device_seconds": "no limit", "deadline": "none", "pin": "nothing"}


def numbers(text: str) -> list[int]:
    """The whole numbers of a text, in order, without those of fractions."""
    return [int(found.replace(",", "")) for found in re.findall(r"(?<![\d/])\d[\d,]*(?!/)\b", text)]


def test_the_table_has_every_field_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE, re.MULTILINE))
    fields = Search.model_fields
    assert rows.keys() == fields.keys()
    for name, shown in rows.items():
        assert shown.strip("`") == NOTHING.get(name, str(fields[name].default))


def test_the_page_names_the_rungs_and_how_many_rows_are_scored_there() -> None:
    _, _, section = PAGE.partition("**Early stopping.**")
    where, how = section.split("\n\n")[:2]
    assert (FIRST_RUNG_SHARE, RUNG_FACTOR) == (1 / 4, 3)
    assert "a quarter" in where
    assert "three times" in where
    rule, _, example = where.partition("For example")
    assert numbers(rule) == [1, *FIRST_RUNG_ROWS, LEAST_RUNG_ROWS]
    rows, epochs, *rungs = numbers(re.sub(r"rung \d|\(.*", "", example))
    first = first_rung(self_ending(design(Full(), epochs=epochs)), rows)
    assert rungs == [first * RUNG_FACTOR**rung for rung in range(3)]
    assert numbers(how) == [RUNG_ROWS, RUNG_PAIRS, RUNG_GENERATIONS]
    assert [Fraction(found) for found in re.findall(r"\d/\d", how)] == [Fraction(1, 9), Fraction(1, 3)]
    assert [pytest.approx(1 / 9), pytest.approx(1 / 3)] == list(RUNGS)
