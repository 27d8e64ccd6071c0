"""Labels, scores and pairs that contradict one another are counted in a warning."""

from pathlib import Path

import pytest

from luthier.task import DataKind
from tests.uploads import Row, load_rows


def _judged(index: int, **labels: object) -> Row:
    return {"prompt": f"Where is {index}?", "completion": "By the sea.", **labels}


def _preferred(index: int, **more: object) -> Row:
    return {"prompt": f"Where is {index}?", "chosen": "By the sea.", "rejected": "Nowhere.", **more}


@pytest.mark.parametrize("other", ["labels", "kto_tag"])
def test_two_labels_that_differ_are_counted(other: str, tmp_path: Path) -> None:
    rows = [_judged(n, label=n % 2 == 0, **{other: (n % 2 == 0) is (n > 2)}) for n in range(12)]
    [warning] = load_rows(tmp_path, rows).warnings
    assert "3 rows" in warning
    same = [_judged(n, label=n % 2 == 0, **{other: "yes" if n % 2 == 0 else "no"}) for n in range(12)]
    assert load_rows(tmp_path, same).warnings == ()
    classes = [_judged(n, label=f"kind {n % 3}", kto_tag=n % 2 == 0) for n in range(12)]
    loaded = load_rows(tmp_path, classes)
    assert (loaded.kind, loaded.warnings) == (DataKind.UNPAIRED, ())


@pytest.mark.parametrize(
    ("good", "bad"),
    [("score_chosen", "score_rejected"), ("chosen_rating", "rejected_rating"), ("chosen votes", "rejected votes")],
)
def test_scores_against_the_preference_are_counted(good: str, bad: str, tmp_path: Path) -> None:
    rows = [_preferred(n, **{good: 3 if n < 4 else "8.5", bad: 7}) for n in range(12)]
    [warning] = load_rows(tmp_path, rows).warnings
    assert "4 rows" in warning
    assert f"`{good}`, `{bad}`" in warning
    assert load_rows(tmp_path, [_preferred(n, **{good: 7, bad: 7}) for n in range(12)]).warnings == ()
    assert load_rows(tmp_path, [_preferred(n, **{good: None, bad: True}) for n in range(12)]).warnings == ()
    assert load_rows(tmp_path, [_preferred(n, chosen_logps=-9.5, rejected_logps=-3) for n in range(12)]).warnings == ()


def test_a_pair_in_both_directions_and_an_answer_with_both_labels_are_counted(tmp_path: Path) -> None:
    rows = [_preferred(n) for n in range(12)]
    swapped = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[:3]]
    [warning] = load_rows(tmp_path, rows + swapped).warnings
    assert "6 rows" in warning
    judged = [_judged(n % 10, label=n < 10) for n in range(12)]
    [warning] = load_rows(tmp_path, judged).warnings
    assert "4 rows" in warning


def test_chats_without_a_question_are_counted(tmp_path: Path) -> None:
    said = [{"role": "system", "content": "Greet."}, {"role": "assistant", "content": "Hi."}]
    asked = [{"role": "user", "content": "Well?"}, *said[1:]]
    loaded = load_rows(tmp_path, [{"messages": said if n < 5 else asked} for n in range(12)])
    [note] = loaded.notes
    assert note.startswith("5 chats")
    assert loaded.warnings == ()
