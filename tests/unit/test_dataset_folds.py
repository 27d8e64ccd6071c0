"""Few validation rows: the training and validation rows are split in further ways, and the test rows stay."""

import random
from collections.abc import Iterable

import pytest

from luthier.dataset import ENOUGH, Fold, Row, split
from luthier.dataset.rows import fold as folded
from luthier.task import DataKind


def pairs(count: int, copies: int = 1) -> list[Row]:
    names = random.Random(5).sample(range(10**6), count)
    return [{"prompt": f"Name {name}", "completion": f"{name} {copy}"} for name in names for copy in range(copies)]


def prompts(rows: Iterable[Row]) -> set[str]:
    return {folded(row["prompt"]) for row in rows}


def folds_of(rows: list[Row], wanted: int, kind: DataKind = DataKind.PAIRS) -> tuple[Fold, ...]:
    return split(rows, kind, folds=wanted).folds


@pytest.mark.parametrize("count", [6, 10, 37, 150, 499])
def test_each_split_holds_all_rows_but_those_of_test_once(count: int) -> None:
    rows = pairs(count)
    found = split(rows, DataKind.PAIRS, folds=2)
    kept = prompts(found.train) | prompts(found.validation)
    assert 1 <= len(found.folds) <= 2
    for fold in found.folds:
        assert not prompts(fold.train) & prompts(fold.validation)
        assert prompts(fold.train) | prompts(fold.validation) == kept
        assert not kept & prompts(found.test)
        assert (len(fold.train), len(fold.validation)) == (len(found.train), len(found.validation))
        assert [row for row in rows if row in fold.train] == fold.train, "in the order of the file"


def test_validation_parts_are_disjoint_as_long_as_the_rows_suffice() -> None:
    found = split(pairs(150), DataKind.PAIRS, folds=3)
    parts = [prompts(found.validation), *(prompts(fold.validation) for fold in found.folds)]
    assert [len(part) for part in parts] == [30] * 4, "a fifth of 150; 120 are no test rows"
    assert len(set.union(*parts)) == 120


def test_more_splits_than_fit_are_of_another_order_and_all_differ() -> None:
    found = split(pairs(150), DataKind.PAIRS, folds=10)
    parts = [frozenset(prompts(found.validation)), *(frozenset(prompts(fold.validation)) for fold in found.folds)]
    assert len(found.folds) == 10
    assert len(set(parts)) == 11
    assert len(set().union(*parts[4:8])) == 120, "the second order is cut into disjoint parts as well"


def test_the_splits_do_not_depend_on_the_order_of_the_rows_nor_on_how_many_are_wanted() -> None:
    rows = pairs(80)
    shuffled = random.Random(1).sample(rows, len(rows))
    one, other = folds_of(rows, 2), folds_of(shuffled, 4)[:2]
    assert [fold.validation for fold in one] == [fold.validation for fold in other]
    assert [prompts(fold.train) for fold in one] == [prompts(fold.train) for fold in other]


def test_the_first_three_splits_are_what_they_are_without_further_ones() -> None:
    rows = pairs(150)
    with_folds, without = split(rows, DataKind.PAIRS, folds=3), split(rows, DataKind.PAIRS)
    assert (with_folds.train, with_folds.validation, with_folds.test) == (
        without.train,
        without.validation,
        without.test,
    )
    assert without.folds == ()


def test_there_are_none_where_the_validation_rows_suffice_or_were_uploaded() -> None:
    assert split(pairs(500), DataKind.PAIRS, folds=2).folds == ()
    assert len(split(pairs(499), DataKind.PAIRS, folds=2).folds) == 2
    many_rows = split(pairs(100, copies=5), DataKind.PAIRS, folds=2)
    assert len(many_rows.validation) == ENOUGH, "rows count, not prompts"
    assert many_rows.folds == ()
    own = [{"prompt": f"Own {n}", "completion": "yes"} for n in range(20)]
    assert split(pairs(60), DataKind.PAIRS, validation_rows=own, folds=2).folds == ()


def test_rows_that_repeat_another_exactly_are_scored_once_and_trained_on() -> None:
    rows = pairs(40)
    for fold in folds_of([*rows, *rows], 2):
        assert len(fold.validation) == len(prompts(fold.validation))
        assert len(fold.train) == 2 * len(prompts(fold.train))


def test_near_duplicates_stay_on_one_side() -> None:
    texts = [" ".join(random.Random(n).choices("abcdefghijklmnopqrstuvwxyz", k=60)) for n in range(40)]
    rows = [{"prompt": f"{text}{end}", "completion": "yes"} for text in texts for end in ("", " so")]
    found = split(rows, DataKind.PAIRS, folds=3)
    assert "stay in one split" in " ".join(found.notes)
    for fold in found.folds:
        trained = {prompt.removesuffix(" so") for prompt in prompts(fold.train)}
        assert not trained & {prompt.removesuffix(" so") for prompt in prompts(fold.validation)}


def test_prompts_that_differ_only_by_system_message_are_told_apart_in_all_splits() -> None:
    rows = [
        {"messages": [{"role": "system", "content": f"You are clerk {n}."}, *_turn("Hello?", f"No. {n}")]}
        for n in range(40)
    ]
    found = split(rows, DataKind.CHAT, folds=2)
    assert [(len(fold.train), len(fold.validation)) for fold in found.folds] == [(24, 8), (24, 8)]


def _turn(said: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]


def test_labelled_rows_have_both_labels_on_both_sides() -> None:
    rows = [{**row, "label": number % 9 == 0} for number, row in enumerate(pairs(60))]
    found = folds_of(rows, 6, DataKind.UNPAIRED)
    assert len(found) == 6
    assert all(len({row["label"] for row in part}) == 2 for fold in found for part in (fold.train, fold.validation))
    same = [{**row, "label": True} for row in pairs(60)]
    assert folds_of(same, 6, DataKind.UNPAIRED) == ()
