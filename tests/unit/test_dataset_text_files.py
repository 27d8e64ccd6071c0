"""Files of plain text: each row is a part of the file as it stands there, and tables are not read as prose."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.dataset import Loaded, load
from luthier.dataset.plain_text import PIECE_CHARACTERS, text_rows
from luthier.errors import DatasetError
from luthier.task import DataKind

FILLER = "It rained on the way to Ely and the wheel of the cart broke. "


def _load(folder: Path, text: str, name: str = "tale.txt") -> Loaded:
    path = folder / name
    path.write_bytes(text.encode())
    return load(path, name, max_row_bytes=2**20)


LINES = st.lists(
    st.sampled_from(
        ["\n", "  \n", "# One\n", "## Two  \n", "\tindented  \n", "word " * 90 + "\n", "x" * 4_500 + "\n", "a b\r\n"]
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(LINES)
def test_rows_are_parts_of_the_text_in_its_order_and_nothing_but_white_space_is_between_them(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_bytes("".join(lines).encode())
    text, at = "".join(lines).replace("\r\n", "\n"), 0
    with path.open("rb") as stream:
        rows = [row["text"] for _, row in text_rows(stream, 2**20, None)]  # type: ignore[arg-type]  # no fault occurs
    for row in rows:
        place = text.index(row, at)
        assert not text[at:place].strip()
        assert len(row) <= PIECE_CHARACTERS
        at = place + len(row)
    assert not text[at:].strip()


TABLES = {
    "commas": ["prompt,completion,seen", *[f'"Where, {n}?",{FILLER},{n}' for n in range(60)]],
    "tabs": ["id\tText", *[f"{n}\t{FILLER}" for n in range(60)]],
    "semicolons": ["Question;Answer", *[f'{FILLER};"two\nlines; {n}"' for n in range(60)]],
    "bars": ["instruction|output", *[f"{FILLER}|{n}" for n in range(60)]],
    "pairs without a header": [f"Where is the town of {n}?\tThe town lies {n} miles from the sea." for n in range(60)],
    "JSON Lines under a comment": [
        "# made by hand",
        *[f'{{"prompt": "{FILLER}", "completion": "{n}"}}' for n in range(60)],
    ],
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_named_as_text_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"Name it \.[ct]sv|name it \.jsonl"):
        _load(tmp_path, "\n".join(TABLES[name]))


PROSE = {
    "prose": [FILLER * 5, ""] * 100,
    "a poem": ["Roses are red, violets are blue,", "sugar is sweet, and so are you."] * 400,
    "a list": [f"- apples, pears; plums {n}" for n in range(900)],
    "a log": [f"2024-01-01 10:00:{n % 60:02}, INFO, worker {n} has started a trial" for n in range(500)],
    "a log with tabs": [f"10:00:{n % 60:02}\tINFO\tworker {n} has started a trial" for n in range(500)],
    "code": ["prompt, text = row", "if prompt:", "    print(prompt, text)", ""] * 600,
    "a chat": [f"{'ABC'[n % 3]}: Did you go to Ely on day {n}, or to Rye?" for n in range(500)],
    "Markdown with tables": [FILLER * 4, "", "| Question | Answer |", "|---|---|", "| a | b |", "| c | d |", ""] * 80,
    "JSON in Markdown": [FILLER * 4, "", "```json", '{"prompt": "a"}', "```", ""] * 80,
    "a heading with names": ["Question, answer", "", *[FILLER * 4, ""] * 100],
}


@pytest.mark.parametrize("name", PROSE)
@pytest.mark.parametrize("ending", [".txt", ".md"])
def test_other_text_is_read(name: str, ending: str, tmp_path: Path) -> None:
    assert _load(tmp_path, "\n".join(PROSE[name]), f"tale{ending}").kind is DataKind.TEXT
