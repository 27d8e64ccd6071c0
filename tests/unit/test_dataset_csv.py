"""CSV files as spreadsheets and scripts write them."""

import time
from pathlib import Path

import pytest

from luthier.dataset import Loaded, load
from luthier.errors import DatasetError
from luthier.task import DataKind


def _load(folder: Path, name: str, text: str) -> Loaded:
    path = folder / "upload"
    path.write_bytes(text.encode())
    return load(path, name, max_row_bytes=2**20)


def _rows(end: str = "", mark: str = ",", line: str = "\n") -> str:
    return "".join(f"q{n}{mark}a{n}{end}{line}" for n in range(12))


FIRST = {"prompt": "q0", "completion": "a0"}


@pytest.mark.parametrize(
    "text",
    [
        f"prompt,completion,,\n{_rows(',,')}",
        f"prompt,completion,\n{_rows(',')}",
        f"prompt,completion,, \n{_rows()}",
        f"prompt,,completion,\n{_rows(',').replace(',a', ',,a')}",
        f",,\nprompt,completion,\n{_rows(',')},,\n,,\n",
        f"sep=;\nprompt;completion\n{_rows(mark=';')}",
        f"\ufeffSEP=,\r\nprompt,completion\r\n{_rows(line=chr(13) + chr(10))}",
        f'"sep=|"\nprompt|completion\n{_rows(mark="|")}',
        f"sep=:\nprompt:completion\n{_rows(mark=':')}",
        f"sep=\t\nprompt\tcompletion\n{_rows(mark=chr(9))}",
        f"prompt,completion\r{_rows(line=chr(13))}",
        f"sep=;\rprompt;completion\r{_rows(mark=';', line=chr(13)).rstrip()}",
    ],
)
def test_spreadsheets_are_read(text: str, tmp_path: Path) -> None:
    loaded = _load(tmp_path, "train.csv", text)
    assert (len(loaded.rows), loaded.rows[0], loaded.unused_columns) == (12, FIRST, ())


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_comma_in_quotes_in_the_header_separates_nothing(mark: str, tmp_path: Path) -> None:
    text = f'prompt{mark}completion{mark}"source, with page"\n' + _rows(end=f"{mark}p. 7", mark=mark)
    assert _load(tmp_path, "train.csv", text).rows[0] == {**FIRST, "source, with page": "p. 7"}
    text = f'"prompt, short",completion,"a{mark}b"\n' + _rows(end=",1")
    with pytest.raises(DatasetError, match=r"columns `prompt, short`, `completion`"):
        _load(tmp_path, "train.csv", text)


def test_a_wide_file_is_read_in_a_time_that_grows_with_its_width(tmp_path: Path) -> None:
    def seconds(columns: int) -> float:
        names = ["prompt", "completion", *(f"c{n}" for n in range(columns - 2))]
        text = ",".join(names) + "\n" + "".join(",".join(["x"] * columns) + "\n" for _ in range(12))
        started = time.process_time()
        assert len(_load(tmp_path, "train.csv", text).unused_columns) == 100
        return time.process_time() - started

    assert seconds(10_000) < 60 * max(seconds(1_000), 0.01)  # a quadratic loop takes a hundred times as long


def test_an_index_without_a_name_is_a_column_that_is_not_used(tmp_path: Path) -> None:
    text = ",prompt,completion\n" + "".join(f"{n},q{n},a{n}\n" for n in range(12))
    loaded = _load(tmp_path, "train.csv", text)
    assert (loaded.rows[0], loaded.unused_columns) == ({**FIRST, "": "0"}, ("",))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"prompt,completion,,\n{_rows(',,')}q,a,,note\n", r"row 13 .*'note' in column 4"),
        (f"prompt,completion,,\n{_rows(',,')}q,a,,,\n", r"row 13 has 5 fields, the header has 4"),
        (f"prompt,completion,,\n{_rows(',,')}q\n", r"row 13 has 1 fields, the header has 4"),
        (f"prompt,completion\n{_rows()}q,Hello,\n", r"row 13 has 3 fields, the header has 2"),
        (f"prompt,completion\n{_rows()}q\rq,a\n", r"row 13 has a carriage return"),
        (f'prompt,completion\n{_rows()}q,"a" b\n', r"row 13 is not CSV: .*twice"),
    ],
)
def test_what_is_unclear_names_its_row_and_cause(text: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=fault):
        _load(tmp_path, "train.csv", text)


@pytest.mark.parametrize(
    "answer",
    ['"No" was all she said', 'a 5" pipe', '"', 'she said "no"', '"yes" or "no"'],
)
def test_quotes_in_a_file_with_tabs_are_text(answer: str, tmp_path: Path) -> None:
    text = "prompt\tcompletion\n" + "".join(f"q{n}\t{answer}\n" for n in range(12))
    rows = _load(tmp_path, "train.tsv", text).rows
    assert [row["completion"] for row in rows] == [answer] * 12


def test_a_faulty_row_of_a_file_with_tabs_does_not_change_the_others(tmp_path: Path) -> None:
    good = "prompt\tcompletion\n" + "".join(f'"q{n}"\t"say ""{n}"""\n' for n in range(12))
    for row, fault in [('q\t"No" is all\n', "row 13 is not CSV"), ('q\t"No is all\n', "row 13 .*never closed")]:
        with pytest.raises(DatasetError, match=rf"has 1 fault:\n  - {fault}"):
            _load(tmp_path, "train.tsv", good + row)
    mostly = "prompt\tcompletion\n" + "".join(f'q{n}\t"{n}" they say\n' for n in range(12)) + 'q\t"No"\n'
    assert _load(tmp_path, "train.tsv", mostly).rows[12]["completion"] == '"No"'


SWALLOWING = ['q,"a\n', "q1,a1\n", 'q2,a2"\n']


@pytest.mark.parametrize("mark", [",", ";", "|"])
@pytest.mark.parametrize("quoted", ["answer", "question"])
def test_rows_between_two_stray_quotes_are_named_instead_of_read_as_one_text(
    mark: str, quoted: str, tmp_path: Path
) -> None:
    lines = ['"q,a\n', *(f"q{n},a\n" for n in range(3)), 'q",a2\n'] if quoted == "question" else SWALLOWING
    text = "prompt,completion\n" + _rows() + "".join(lines) + _rows()
    with pytest.raises(DatasetError, match=rf"has 1 fault:\n  - row 13 contains {len(lines)} lines"):
        _load(tmp_path, "train.csv", text.replace(",", mark))


def test_few_texts_of_lines_like_rows_are_noted_where_other_texts_have_lines_too(tmp_path: Path) -> None:
    text = "prompt,completion\n" + _rows() + 'q,"a\nb"\n'
    for lines, count in [("".join(SWALLOWING), 3), ('q,"a\nb,c"\n', 2)]:
        loaded = _load(tmp_path, "train.csv", text + lines)
        [warning] = loaded.warnings
        assert f"row 14 ({count} lines)" in warning
    assert len(loaded.rows) == 14
    assert _load(tmp_path, "train.csv", text + 'q,"a\nb, c,\nd, e"\n').notes == ()
    whole = "prompt,completion\n" + "".join(f'q{n},"Dear {n}\nYes, I do\nNo, I do not"\n' for n in range(12))
    assert _load(tmp_path, "train.csv", whole).notes == ()
    alone = "text\n" + "".join(f'"{n}\n{n}\n{n}"\n' for n in range(12))
    assert _load(tmp_path, "train.csv", alone).notes == ()


def test_a_quote_that_opens_in_one_row_and_ends_in_another_swallows_no_rows(tmp_path: Path) -> None:
    text = "prompt\tcompletion\n" + "".join(f"q{n}\ta{n}\n" for n in range(12)) + '"a\tb\nc\td"\n'
    rows = _load(tmp_path, "train.tsv", text).rows
    assert [row["prompt"] for row in rows[12:]] == ['"a', "c"]


def test_tabs_and_line_ends_within_quotes_are_part_of_a_field(tmp_path: Path) -> None:
    text = "prompt\tcompletion\n" + "".join(f'"q\t{n}"\t"a\n""{n}"""\n' for n in range(12))
    rows = _load(tmp_path, "train.tsv", text).rows
    assert rows[3] == {"prompt": "q\t3", "completion": 'a\n"3"'}


def test_old_macs_line_ends_are_read_in_every_kind_of_text(tmp_path: Path) -> None:
    rows = "\r".join(f'{{"prompt": "q{n}", "completion": "a\\r{n}"}}' for n in range(12))
    assert _load(tmp_path, "train.jsonl", rows).rows[2] == {"prompt": "q2", "completion": "a\r2"}
    book = "\r\r".join(f"# Part {n}\r{'word ' * 250}" for n in range(12))
    loaded = _load(tmp_path, "book.md", book)
    assert (loaded.kind, len(loaded.rows)) == (DataKind.TEXT, 12)
    assert loaded.rows[1]["text"].startswith("# Part 1\n")
    with pytest.raises(DatasetError, match=r"line 2 is not JSON"):
        _load(tmp_path, "train.jsonl", '{"text": "a"}\roops\r{"text": "b"}\r')
    with pytest.raises(DatasetError, match=r"JSON Lines.*\.jsonl"):
        _load(tmp_path, "train.txt", rows)


def test_a_carriage_return_within_a_field_stays(tmp_path: Path) -> None:
    text = "prompt,completion\n" + "".join(f'q{n},"a\rb"\n' for n in range(12))
    assert _load(tmp_path, "train.csv", text).rows[0]["completion"] == "a\rb"


def test_no_set_of_accepted_columns_is_named_twice(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as refused:
        _load(tmp_path, "train.csv", "head,body\n" + "a,b\n" * 12)
    sets = str(refused.value).split("accepted columns: ")[1].split("; ")
    assert "`messages`" in sets
    assert len(set(sets)) == len(sets)


@pytest.mark.parametrize("again", ["prompt,completion\n", "\ufeffPrompt, COMPLETION\n"])
def test_a_header_between_the_rows_is_left_out_and_noted(again: str, tmp_path: Path) -> None:
    loaded = _load(tmp_path, "train.csv", "prompt,completion\n" + _rows() + again + _rows() + again)
    assert [row["completion"] for row in loaded.rows[11:13]] == ["a11", "a0"]
    [warning] = loaded.warnings
    assert "2 rows" in warning
    assert "row 13, 26" in warning
    texts = "text\n" + "".join(f"word {n}\n" for n in range(12)) + "text\n"
    assert len(_load(tmp_path, "train.csv", texts).rows) == 13


def test_single_quotes_enclose_fields_where_the_header_has_them(tmp_path: Path) -> None:
    text = "'prompt';'completion'\n" + "".join(f"'q;{n}';'it''s {n}'\n" for n in range(12))
    assert _load(tmp_path, "train.csv", text).rows[3] == {"prompt": "q;3", "completion": "it's 3"}
    text = "prompt,completion\n" + "".join(f"'q{n}','a'\n" for n in range(12))
    assert _load(tmp_path, "train.csv", text).rows[3] == {"prompt": "'q3'", "completion": "'a'"}


@pytest.mark.parametrize("rule", ["|---|---|", "| :--- | ---: |"])
def test_a_table_of_markdown_is_refused(rule: str, tmp_path: Path) -> None:
    text = f"| prompt | completion |\n{rule}\n" + "".join(f"| q{n} | a{n} |\n" for n in range(12))
    with pytest.raises(DatasetError, match="Markdown"):
        _load(tmp_path, "train.csv", text)


def test_spaces_that_are_ignored_are_counted(tmp_path: Path) -> None:
    text = "prompt, completion\n" + "".join(f"q{n}, a{n}\n" for n in range(12)) + 'q, "a, b"\n' + 'r,"c"\n'
    loaded = _load(tmp_path, "train.csv", text)
    assert [row["completion"] for row in loaded.rows[10:]] == ["a10", "a11", "a, b", "c"]
    [warning] = loaded.warnings
    assert "in 13 fields" in warning  # half of `"a, b"` too
    assert _load(tmp_path, "train.csv", text.replace(", a", ",a").replace(', "a, b"', ', "a"')).warnings == ()


@pytest.mark.parametrize("more", ["chosen,rejected", "messages,label", "instruction,output", "conversations,system"])
def test_columns_that_are_empty_in_all_rows_are_as_good_as_none(more: str, tmp_path: Path) -> None:
    loaded = _load(tmp_path, "train.csv", f"prompt,completion,{more}\n" + _rows(",, "))
    assert (loaded.format, loaded.warnings) == ("prompt_completion", ())
    with pytest.raises(DatasetError, match=r"row 1, field `completion`: .*empty string"):
        _load(tmp_path, "train.csv", "prompt,completion\n" + "".join(f"q{n},\n" for n in range(12)))
    one = f"prompt,completion,{more}\n" + _rows(",,") + "q,a,x,y\n"
    if more == "chosen,rejected":
        with pytest.raises(DatasetError, match=r"12 faults:\n  - row 1, field `chosen`"):
            _load(tmp_path, "train.csv", one)
