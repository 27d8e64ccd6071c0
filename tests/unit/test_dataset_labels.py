"""Which `label` columns have preference labels of KTO, and which are not used."""

from pathlib import Path

import pytest

from luthier.errors import DatasetError
from luthier.task import DataKind
from tests.uploads import Row, load_rows

PAIR = {"prompt": "Name a town.", "completion": "Ely"}


def _labelled(*labels: object) -> list[Row]:
    return [PAIR | {"prompt": f"Name town {n}.", "label": label} for n, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([1, 2], "'2'"),
        (["2", "1", "1"], "'2'"),
        ([0, 0.5, 1], "'0.5'"),
        ([0.0, 0.25, 0.75, 1.0], "'0.25'"),
        ([1, 1, 1, 1, 2, 3, 4, 5], "'2'"),
        ([0, 1, 2], "'2'"),
        (["yes", "no", "maybe"], "'maybe'"),
        (["good", "good", "good", "fair"], "'fair'"),
        ([*["Pass"] * 19, "Distinction"], "'distinction'"),
        (["F", "M"], "'m'"),
        ([True, {"stars": 4}], "an object"),
        ([-1, 0, 1], "-1 and 0"),
        (["travel", "food"], "'travel'"),
    ],
)
def test_labels_that_are_no_verdicts_are_not_used_and_the_note_says_why(
    values: list[object], named: str, tmp_path: Path
) -> None:
    loaded = load_rows(tmp_path, _labelled(*values * 20))
    assert (loaded.kind, loaded.unused_columns) == (DataKind.PAIRS, ("label",))
    assert [row["label"] for row in loaded.rows[: len(values)]] == values
    [note] = loaded.notes
    assert "`label`" in note
    assert "`kto_tag`" in note
    assert named in note


@pytest.mark.parametrize("odd", ["unsure", 2, 0.5, {"stars": 4}, None, ""])
@pytest.mark.parametrize(("good", "bad"), [(1, 0), ("yes", "no"), (True, False), ("thumbs up", "thumbs down")])
def test_a_few_odd_values_among_verdicts_are_faults_of_their_rows(
    good: object, bad: object, odd: object, tmp_path: Path
) -> None:
    values = [good, bad] * 30
    values[40] = values[7] = odd
    with pytest.raises(DatasetError, match=r"2 faults:\n  - row 8, field `label`.*\n  - row 41, field `label`"):
        load_rows(tmp_path, _labelled(*values))


def test_the_tag_of_kto_is_asked_for_whatever_its_values(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"10 faults:\n  - row 2, field `kto_tag`"):
        load_rows(tmp_path, [PAIR | {"kto_tag": n % 2 + 1} for n in range(20)])
