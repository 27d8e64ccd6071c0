"""A report of finalists that were repeated on further splits of the rows: designs compare on the same rows only."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from search.report.build import explain
from search.report.charts import landscape
from search.report.inputs import Case, Tried
from tests.unit.report_samples import case, searched

HARDER = (0.0, 0.3, -0.05)  # what each split adds to the score of every design


def on_splits(tried: Sequence[Tried]) -> list[Tried]:
    """The same search, where the first repeat of each design is of the second split, and the next of the third."""
    found, repeats = list[Tried](), dict[int, int]()
    for one in tried:
        split = 0
        if (design := one.past.confirms) is not None:
            split = repeats[design] = repeats.get(design, 0) + 1
        value = one.past.value
        past = one.past.model_copy(update={"split": split, "value": None if value is None else value + HARDER[split]})
        found.append(one.model_copy(update={"past": past}))
    return found


@pytest.fixture(scope="module")
def split() -> Case:
    return case(on_splits(searched()))


def test_the_ranking_is_that_of_repeats_on_the_same_rows(split: Case) -> None:
    assert [tried.number for tried in split.ranked] == [tried.number for tried in case().ranked]
    assert split.value(split.by_number[5]) == pytest.approx(case().value(case().by_number[5]) + sum(HARDER) / 3)


def test_the_report_names_the_splits_and_each_seed_its_own(split: Case) -> None:
    report = explain(split)
    assert (report.judge.splits, explain(case()).judge.splits) == (3, 1)
    assert any("3 splits of the 540" in words for words in report.task.words)
    for one in report.seeds:
        assert [seed.split for seed in one.seeds] == list(range(len(one.seeds)))
        assert one.spread == pytest.approx(0.0, abs=1e-9), "all designs have the same on each split"
    assert not any("cross-validation" in words for words in explain(case()).task.words)


def test_a_design_without_repeats_is_not_better_for_its_easier_rows(split: Case) -> None:
    """Trial 6 and the default lose their repeats: they are scored on the first split, where the winner was better."""
    kept = [one for one in split.tried if one.past.confirms not in (1, 6)]
    alone = case(kept)
    lone, won = alone.by_number[6], alone.by_number[5]
    assert alone.value(lone) < alone.value(won)
    assert alone.comparable(lone) > alone.comparable(won)
    assert alone.pair(won, lone) == pytest.approx((0.70, 0.71))
    report = explain(alone)
    assert report.winner is not None
    assert report.winner.number == 5
    update = next(axis for axis in report.winner.axes if axis.axis == "weight update")
    [words] = [words for words in update.words if "The best of the others" in words]
    assert [float(score) for score in re.findall(r"scored ([\d.]+\d)", words)] == [0.7, 0.71]
    assert set(landscape(alone).number) >= {5, 6}
    costlier = lone.model_copy(update={"past": lone.past.model_copy(update={"device_seconds": 999.0})})
    others = [costlier if one.number == 6 else one for one in kept]
    front = explain(case(others)).front
    assert 6 not in {one.number for one in front}, "worse and dearer than 5 on the same rows"


def test_a_lead_on_the_validation_rows_is_that_on_the_rows_of_both(split: Case) -> None:
    """The default has no repeats, so its mean is of the easiest rows; the lead on these agrees with the test rows."""
    report = explain(case([one for one in split.tried if one.past.confirms != 1]))
    assert not any("lead over the plain-LoRA default" in words for words in report.weaknesses)
