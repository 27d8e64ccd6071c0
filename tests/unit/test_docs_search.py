"""docs/search.md names every field that steers a search, with its default."""

import re
from pathlib import Path

from luthier.task import Search
from luthier.trial import RUNG_GENERATIONS, RUNG_PAIRS, RUNG_ROWS, RUNGS, rung_name

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text("utf-8")
NOTHING = {"device_seconds": "no limit", "deadline": "none", "pin": "nothing"}


def test_the_table_has_every_field_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE, re.MULTILINE))
    fields = Search.model_fields
    assert rows.keys() == fields.keys()
    for name, shown in rows.items():
        assert shown.strip("`") == NOTHING.get(name, str(fields[name].default))


def test_the_page_names_the_rungs_and_how_many_rows_are_scored_there() -> None:
    assert [rung_name(rung) for rung in range(len(RUNGS))] == ["1/9", "1/3"]
    _, _, section = PAGE.partition("**Early stopping.**")
    paragraph = section.partition("\n\n")[0]
    assert "a ninth" in paragraph
    assert "a third" in paragraph
    assert re.findall(r"\d+", paragraph) == [str(RUNG_ROWS), str(RUNG_PAIRS), str(RUNG_GENERATIONS)]
