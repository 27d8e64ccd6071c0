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


def test_the_page_says_what_is_scored_where() -> None:
    assert [rung_name(rung) for rung in range(len(RUNGS))] == ["1/9", "1/3"]
    assert "to a ninth of its training" in PAGE
    assert "the second one is at a third" in PAGE
    assert (
        f"up to {RUNG_ROWS} validation rows ({RUNG_PAIRS} pairs of preferences, and {RUNG_GENERATIONS} answers"
        in PAGE.replace("\n", " ")
    )
