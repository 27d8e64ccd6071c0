"""No prompt in two splits, whatever the order of the rows, and no row moved by new ones."""

import random
import unicodedata
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.dataset import Row, Splits, about_held_out, split
from luthier.dataset.rows import fold, prompt_hash, row_hash
from luthier.errors import DatasetError
from luthier.task import DataKind


def _pair(prompt: object, completion: str = "yes") -> Row:
    return {"prompt": f"Question {prompt}", "completion": completion}


def _texts(rows: Iterable[Row]) -> list[str]:
    return [row["text"] for row in rows]


def _parts(splits: Splits) -> tuple[list[Row], list[Row], list[Row]]:
    return splits.train, splits.validation, splits.test


def _prompts(rows: Iterable[Row]) -> set[str]:
    return {fold(row["prompt"]) for row in rows}


PROMPTS = st.lists(st.text("aAbB \n", max_size=6), min_size=40, max_size=200)
ROWS = PROMPTS.map(lambda prompts: [_pair(prompt, f"c{i % 3}") for i, prompt in enumerate(prompts)]).filter(
    lambda rows: len(_prompts(rows)) >= 30
)


@settings(max_examples=50)
@given(rows=ROWS)
def test_no_prompt_is_in_two_splits_and_none_is_lost(rows: list[Row]) -> None:
    train, validation, test = map(_prompts, _parts(split(rows, DataKind.PAIRS)))
    assert not train & validation
    assert not (train | validation) & test
    assert train | validation | test == _prompts(rows)
    assert min(len(train), len(validation), len(test)) >= 2


@settings(max_examples=50)
@given(rows=ROWS, seed=st.integers())
def test_the_order_of_the_rows_does_not_matter(rows: list[Row], seed: int) -> None:
    shuffled = random.Random(seed).sample(rows, len(rows))
    for one, other in zip(_parts(split(rows, DataKind.PAIRS)), _parts(split(shuffled, DataKind.PAIRS)), strict=True):
        assert _prompts(one) == _prompts(other)


@settings(max_examples=10)
@given(count=st.integers(1_600, 2_500), added=st.integers(1, 1_500), start=st.integers(0, 10**6))
def test_new_rows_never_move_old_ones(count: int, added: int, start: int) -> None:
    rows = [{"text": f"Story {start + index}"} for index in range(count + added)]
    before, after = split(rows[:count], DataKind.TEXT), split(rows, DataKind.TEXT)
    for old, new in zip(_parts(before), _parts(after), strict=True):
        assert set(_texts(old)) <= set(_texts(new))


@settings(max_examples=50)
@given(rows=ROWS, given_prompts=st.lists(st.text("aAbB \n", max_size=3), min_size=3, max_size=12))
def test_nothing_of_a_validation_file_is_trained_on_or_tested_with(rows: list[Row], given_prompts: list[str]) -> None:
    validation_rows = [_pair(prompt) for prompt in given_prompts]
    try:
        splits = split(rows, DataKind.PAIRS, validation_rows=validation_rows)
    except DatasetError:
        assert len(_prompts(rows) - _prompts(validation_rows)) < 6
        return
    assert _prompts(splits.validation) == _prompts(validation_rows)
    assert not _prompts(splits.train + splits.test) & _prompts(validation_rows)
    assert not _prompts(splits.train) & _prompts(splits.test)


def test_about_a_tenth_is_tested_with_and_another_validated_with() -> None:
    train, validation, test = map(len, _parts(split([{"text": f"Story {i}"} for i in range(10_000)], DataKind.TEXT)))
    assert train + validation + test == 10_000
    assert abs(validation - 1_000) < 120
    assert abs(test - 1_000) < 120


@pytest.mark.parametrize(("count", "sizes"), [(6, (2, 2, 2)), (10, (6, 2, 2))])
def test_a_small_file_still_has_two_rows_in_each_split(count: int, sizes: tuple[int, int, int]) -> None:
    for start in range(20):
        found = tuple(map(len, _parts(split([_pair(start * 100 + i) for i in range(count)], DataKind.PAIRS))))
        assert min(found) >= 2
        if count == 6:
            assert found == sizes


@pytest.mark.parametrize(
    ("count", "held_out"), [(15, 3), (50, 10), (100, 20), (150, 30), (499, 99), (500, 100), (700, 100), (900, 100)]
)
def test_a_small_file_holds_out_a_fifth_and_a_larger_one_a_hundred_at_least(count: int, held_out: int) -> None:
    for start in range(0, 3_000, 1_000):
        rows = [_pair(start + i) for i in range(count)]
        train, validation, test = map(len, _parts(split(rows, DataKind.PAIRS)))
        # Above a few hundred prompts the tenth of the hashes may be more than the least number.
        assert held_out <= validation <= max(held_out, count // 7)
        assert held_out <= test <= max(held_out, count // 7)
        assert train == count - validation - test
        given = [_pair(f"given {i}") for i in range(40)]
        apart = split(rows, DataKind.PAIRS, validation_rows=given)
        assert len(apart.validation) == 40
        assert held_out <= len(apart.test) <= max(held_out, count // 7)


@pytest.mark.parametrize("count", [10, 37, 150, 480, 1_000, 5_000])
def test_the_estimate_of_what_is_held_out_is_near(count: int) -> None:
    splits = split([_pair(i) for i in range(count)], DataKind.PAIRS)
    for part in (splits.validation, splits.test):
        assert len(part) == pytest.approx(about_held_out(count), abs=max(1, 0.15 * about_held_out(count)))


def test_old_training_rows_of_a_file_that_grows_past_500_prompts_are_never_held_out() -> None:
    """So that a model of the job before can be tested on the rows of the next."""
    rows = [_pair(i) for i in range(2_000)]
    before = split(rows[:500], DataKind.PAIRS)
    for count in (600, 900, 2_000):
        after = split(rows[:count], DataKind.PAIRS)
        assert _prompts(before.train) <= _prompts(after.train)
        assert not _prompts(after.test) & (_prompts(before.train) | _prompts(before.validation))


def test_too_few_different_prompts_are_refused() -> None:
    rows = [_pair(i % 3, str(i)) for i in range(30)]
    with pytest.raises(DatasetError, match=r"\b3 different prompts.*\b6\b"):
        split(rows, DataKind.PAIRS)
    with pytest.raises(DatasetError, match=r"\b1 different prompts.*\b20 rows.*validation file.*\b4\b"):
        split(rows, DataKind.PAIRS, validation_rows=[_pair(0), _pair(1)])


def test_the_same_prompt_in_other_spacing_and_case_stays_in_its_split() -> None:
    rows = [_pair(index) for index in range(500)]
    again = [row | {"prompt": f"  {row['prompt'].upper()}\n", "completion": "no"} for row in rows]
    for alone, together in zip(
        _parts(split(rows, DataKind.PAIRS)), _parts(split(rows + again, DataKind.PAIRS)), strict=True
    ):
        assert _prompts(alone) == _prompts(together)
        assert len(together) == 2 * len(alone)


def test_composed_and_decomposed_characters_are_the_same_prompt() -> None:
    rows = [{"prompt": f"¿Où est la {n}ᵉ clé à côté d'Ōsaka, 각?", "completion": "là"} for n in range(60)]
    again = [{column: unicodedata.normalize("NFD", text) for column, text in row.items()} for row in rows]
    parts = split(rows + again, DataKind.PAIRS)
    assert [len(part) for part in _parts(parts)] == [72, 12, 12]  # twelve prompts each are scored once
    train, validation, test = map(_prompts, _parts(parts))
    assert not train & validation | train & test | validation & test
    assert {row["prompt"] for row in parts.train} == {
        form["prompt"]
        for row, other in zip(rows, again, strict=True)
        if fold(row["prompt"]) in train
        for form in (row, other)
    }  # what is trained on stays as it is written
    assert prompt_hash(rows[0], DataKind.PAIRS) == prompt_hash(again[0], DataKind.PAIRS)


def test_repeats_are_trained_on_but_judged_once() -> None:
    rows = [_pair(index) | {"id": index} for index in range(200)]
    once, thrice = split(rows, DataKind.PAIRS), split(rows * 3, DataKind.PAIRS)
    assert thrice.train == once.train * 3
    assert (thrice.validation, thrice.test) == (once.validation, once.test)
    of_validation, of_test = thrice.notes
    assert f" {2 * len(once.validation)} " in of_validation
    assert "validation split" in of_validation
    assert f" {2 * len(once.test)} " in of_test
    assert "test split" in of_test


def test_other_answers_to_the_same_prompt_are_no_repeats() -> None:
    rows = [_pair(index, answer) for index in range(100) for answer in ("yes", "no")]
    splits = split(rows, DataKind.PAIRS)
    assert sum(map(len, _parts(splits))) == 200
    assert splits.notes == ()


def test_training_rows_that_leak_are_left_out_and_said() -> None:
    rows = [_pair(index) for index in range(100)]
    leaked = [_pair(f"  {index}", "other") for index in range(5)]
    splits = split(rows, DataKind.PAIRS, validation_rows=[*leaked, _pair("new")])
    assert len(splits.validation) == 6
    assert len(splits.train) + len(splits.test) == 95
    [note] = splits.notes
    assert " 5 training rows" in note
    assert "validation file" in note


def test_held_out_rows_are_in_the_order_of_their_hashes_and_training_rows_in_that_of_the_file() -> None:
    rows = [_pair(index) for index in range(1_000)]
    splits = split(rows, DataKind.PAIRS)
    for part in (splits.validation, splits.test):
        hashes = [prompt_hash(row, DataKind.PAIRS) for row in part]
        assert hashes == sorted(hashes)
    assert splits.train == [row for row in rows if row in splits.train]


def _chat(*contents: str) -> list[Row]:
    return [{"role": ("user", "assistant")[index % 2], "content": content} for index, content in enumerate(contents)]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (DataKind.TEXT, {"text": "A  b"}, {"text": "a B\n", "id": 7}),
        (
            DataKind.PAIRS,
            {"prompt": "Hi", "completion": "a"},
            {"prompt": _chat("hi "), "completion": _chat("x", "b")[1:]},
        ),
        (DataKind.CHAT, {"messages": _chat("a", "x", "b", "y")}, {"messages": _chat("A", "z", "B", "w"), "tools": []}),
        (
            DataKind.CHAT,
            {"messages": [{"role": "system", "content": "Be kind."}, *_chat("a", "x")]},
            {"messages": _chat("a", "x")},
        ),
        (
            DataKind.PREFERENCE,
            {"prompt": "q", "chosen": "a", "rejected": "b"},
            {"prompt": "Q", "chosen": "b", "rejected": "a"},
        ),
        (
            DataKind.UNPAIRED,
            {"prompt": "q", "completion": "a", "label": True},
            {"prompt": "Q", "completion": "b", "label": False},
        ),
    ],
)
def test_rows_that_ask_the_same_share_their_hash(kind: DataKind, one: Row, other: Row) -> None:
    assert prompt_hash(one, kind) == prompt_hash(other, kind)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (DataKind.TEXT, {"text": "ab"}, {"text": "a b"}),
        (DataKind.CHAT, {"messages": _chat("a", "x", "b", "y")}, {"messages": _chat("a b", "x")}),
        (DataKind.CHAT, {"messages": _chat("a", "x")}, {"messages": _chat("b", "x")}),
        (DataKind.PAIRS, {"prompt": "a", "completion": "x"}, {"prompt": "b", "completion": "x"}),
    ],
)
def test_rows_that_ask_something_else_do_not(kind: DataKind, one: Row, other: Row) -> None:
    assert prompt_hash(one, kind) != prompt_hash(other, kind)


def test_a_repeat_is_the_same_in_every_trained_column() -> None:
    row: Row = {"messages": _chat("a", "b"), "tools": [{"type": "function", "function": {"name": "f"}}]}
    same: Sequence[Row] = [row | {"id": 1}, row | {"messages": _chat(" A", "B\n")}]
    different: Sequence[Row] = [row | {"messages": _chat("a", "c")}, {"messages": _chat("a", "b")}]
    assert {row_hash(other, DataKind.CHAT) for other in same} == {row_hash(row, DataKind.CHAT)}
    assert row_hash(row, DataKind.CHAT) not in {row_hash(other, DataKind.CHAT) for other in different}


def test_a_hash_is_that_of_the_folded_prompt_for_all_time() -> None:
    """The splits of past jobs depend on it: a change here would move rows from test to train."""
    assert prompt_hash({"prompt": " What is\n1 + 1? "}, DataKind.PAIRS) == (
        "99f829c3d56f05938519bed899e8748ac6f9f60f57a47e771ed45e19ac5363a4"
    )


def test_the_same_question_under_many_system_messages_is_split_by_these() -> None:
    rows = [
        {
            "messages": [
                {"role": "system", "content": f"Classify as number {n % 40}."},
                {"role": "user", "content": "Go"},
                {"role": "assistant", "content": f"{n}"},
            ]
        }
        for n in range(80)
    ]
    found = split(rows, DataKind.CHAT)
    by_split = [{row["messages"][0]["content"] for row in part} for part in (found.train, found.validation, found.test)]
    assert sum(map(len, by_split)) == 40
    assert set.union(*by_split) == {f"Classify as number {n}." for n in range(40)}
    with pytest.raises(DatasetError):
        split([{"messages": row["messages"][1:]} for row in rows], DataKind.CHAT)
