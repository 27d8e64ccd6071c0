"""The numbers of a dataset."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from luthier.dataset import Profile, Row, profile
from luthier.dataset.profile import MAX_LENGTH
from luthier.task import DataKind, JudgeSpec


def _words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def _characters(texts: Sequence[str]) -> list[int]:
    return list(map(len, texts))


def _profile(rows: list[Row], kind: DataKind, **options: Any) -> Profile:
    return profile(rows, kind, count_tokens=_words, counted_by="words", **options)


def test_prompts_and_completions_are_measured_apart() -> None:
    rows = [{"prompt": "one two " * index, "completion": "three " * index} for index in range(1, 11)]
    found = _profile(rows, DataKind.PAIRS, source_format="alpaca")
    assert (found.kind, found.format, found.rows, found.counted_by) == (DataKind.PAIRS, "alpaca", 10, "words")
    assert found.prompt_lengths is not None
    assert found.prompt_lengths.model_dump() == {"p50": 10, "p90": 18, "max": 20}
    assert found.target_lengths.model_dump() == {"p50": 5, "p90": 9, "max": 10}
    assert (found.tokens, found.target_tokens) == (165, 55)
    assert found.bytes == sum(len(row["prompt"]) + len(row["completion"]) for row in rows)
    assert found.turns is None


def test_a_text_has_no_prompt_and_is_a_target_as_a_whole() -> None:
    found = _profile([{"text": "a b c"}] * 10, DataKind.TEXT)
    assert found.prompt_lengths is None
    assert found.target_lengths.model_dump() == {"p50": 3, "p90": 3, "max": 3}
    assert found.tokens == found.target_tokens == 30


def test_the_learned_answers_of_a_chat_are_its_target() -> None:
    messages = [
        {"role": "system", "content": "one two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "not learned at all", "weight": 0},
        {"role": "user", "content": "four"},
        {"role": "assistant", "content": "five six", "weight": 1},
    ]
    found = _profile([{"messages": messages}, {"messages": messages[1:3]}], DataKind.CHAT)
    assert found.prompt_lengths is not None
    assert found.prompt_lengths.max == 8
    assert found.target_lengths.max == 2
    assert found.turns is not None
    assert found.turns.model_dump() == {"p50": 2, "p90": 5, "max": 5}


def test_tools_count_as_prompt_and_tool_calls_as_target() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    calls = [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
    messages = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "", "tool_calls": calls}]
    found = profile(
        [{"messages": messages, "tools": tools}], DataKind.CHAT, count_tokens=_characters, counted_by="characters"
    )
    assert found.prompt_lengths is not None
    assert found.prompt_lengths.max == len(json.dumps(tools)) + 2
    assert found.target_lengths.max == len(json.dumps(calls))


def test_both_answers_of_a_preference_are_targets_and_the_longer_makes_the_row() -> None:
    found = _profile([{"prompt": "a", "chosen": "b c", "rejected": "d e f"}], DataKind.PREFERENCE)
    assert found.target_lengths.model_dump() == {"p50": 2, "p90": 3, "max": 3}
    assert found.tokens == 6
    assert found.row_lengths.edges[-1] == 4
    assert found.row_lengths.counts == (0, 0, 0, 1)


def test_the_histogram_doubles_its_bins_and_counts_every_row() -> None:
    found = _profile([{"text": "x " * length} for length in (1, 2, 3, 4, 7, 8, 100)], DataKind.TEXT).row_lengths
    assert found.edges == (0, 1, 2, 4, 8, 16, 32, 64)
    assert found.counts == (0, 1, 2, 2, 1, 0, 0, 1)


@pytest.mark.parametrize(
    ("short", "long", "reached"), [(9, 1, 64), (10, 1, 1), (0, 3, 64), (1, 0, 1)], ids=["tenth", "fewer", "all", "none"]
)
def test_long_rows_are_as_long_as_every_tenth_row_at_least(short: int, long: int, reached: int) -> None:
    rows = [{"text": "x"} for _ in range(short)] + [{"text": "x " * 100} for _ in range(long)]
    assert _profile(rows, DataKind.TEXT).long_rows == reached


def test_repeats_are_counted_beyond_the_first_whatever_their_extra_columns() -> None:
    rows = [{"prompt": "Hi there", "completion": "Yes", "id": 1}, {"prompt": "Hi there", "completion": "Yes", "id": 2}]
    found = _profile([*rows, *rows, {"prompt": "Hi there", "completion": "no"}], DataKind.PAIRS)
    assert (found.duplicates, found.near_repeats) == (3, 0)
    [note] = found.notes
    assert note.startswith("3 rows duplicate")


def test_composed_and_decomposed_characters_are_duplicates_and_leaks() -> None:
    row, other = ({"prompt": prompt, "completion": "Oui"} for prompt in ("D\u00e9j\u00e0 ?", "De\u0301ja\u0300 ?"))
    found = _profile([row, other], DataKind.PAIRS, validation_rows=[other])
    assert (found.duplicates, found.near_repeats, found.leaks) == (1, 0, 1)


def test_many_texts_are_counted_at_once_and_repeated_ones_once() -> None:
    asked: list[list[str]] = []

    def count(texts: Sequence[str]) -> list[int]:
        asked.append(list(texts))
        return _characters(texts)

    rows = [{"prompt": f"{n} " * 60_000, "completion": "yes"} for n in range(20)] + [
        {"prompt": "0", "completion": "yes"}
    ]
    found = profile(rows, DataKind.PAIRS, count_tokens=count, counted_by="characters")
    assert 2 <= len(asked) <= 4
    assert all(texts.count("yes") == 1 for texts in asked)
    assert found.tokens == sum(len(row["prompt"]) + len(row["completion"]) for row in rows)
    assert found.row_lengths.counts[3] == 1


def test_rows_that_differ_by_case_or_white_space_are_no_duplicates() -> None:
    loops = [
        "for a in b:\n    print(a)",
        "for a in b:\n  print(a)",
        "FOR A IN B: PRINT(A)",
        "for a in b:\n    print(a)",
    ]
    found = _profile([{"prompt": "Loop", "completion": loop} for loop in loops], DataKind.PAIRS)
    assert (found.duplicates, found.near_repeats) == (1, 2)
    assert [note.split()[0] for note in found.notes] == ["1", "2"]


def test_near_duplicates_are_counted_by_their_rows() -> None:
    asked = "When did the old lighthouse keeper leave the island after the great storm"
    prompts = [asked, f"{asked}, please?", asked.title(), "How do bees find their way home in the evening light"]
    rows = [{"prompt": prompt, "completion": "c"} for prompt in prompts]
    found = _profile(
        [*rows, *[{"text": "t", "prompt": f"Filler {index}", "completion": "c"} for index in range(9)]], DataKind.PAIRS
    )
    assert found.near_duplicates == 3
    assert _profile(rows[2:], DataKind.PAIRS).near_duplicates == 0


def test_the_notes_of_the_file_come_before_those_of_the_profile() -> None:
    found = _profile([{"text": "a"}] * 2, DataKind.TEXT, unused_columns=("id", "url"), notes=("Read so.",))
    assert found.unused_columns == ("id", "url")
    assert found.notes[0] == "Read so."
    assert len(found.notes) == 2


def test_a_profile_that_was_stored_without_the_newer_fields_is_read() -> None:
    stored = _profile([{"text": "a"}], DataKind.TEXT).model_dump(mode="json")
    for field in ("near_repeats", "near_duplicates", "unused_columns", "desirable", "longer_rows"):
        del stored[field]
    found = Profile.model_validate(stored)
    assert (found.near_repeats, found.near_duplicates, found.unused_columns) == (0, None, ())


def test_rows_longer_than_the_default_limit_of_a_job_are_counted() -> None:
    rows = [
        {"prompt": "one " * length, "completion": "two"} for length in (1, MAX_LENGTH - 1, MAX_LENGTH, 9 * MAX_LENGTH)
    ]
    assert JudgeSpec.model_fields["max_tokens"].default == MAX_LENGTH
    assert _profile(rows, DataKind.PAIRS).longer_rows == 2
    assert _profile(rows[:2], DataKind.PAIRS).longer_rows == 0


def test_they_are_not_counted_where_lengths_are_estimated_or_nothing_is_truncated() -> None:
    rows = [{"text": "one " * 2 * MAX_LENGTH}]
    assert _profile(rows, DataKind.TEXT).longer_rows is None
    assert profile([{"prompt": rows[0]["text"], "completion": "two"}], DataKind.PAIRS).longer_rows is None


def test_reasoning_is_a_target_too() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning_content": "c d "}]
    assert _profile([{"messages": messages}], DataKind.CHAT).target_tokens == 3


def test_validation_rows_whose_prompts_are_trained_on_are_leaks() -> None:
    rows = [{"prompt": f"p{index}", "completion": "c"} for index in range(10)]
    validation = [
        {"prompt": "P1 ", "completion": "other"},
        {"prompt": "p2", "completion": "c"},
        {"prompt": "new", "completion": "c"},
    ]
    found = _profile(rows, DataKind.PAIRS, validation_rows=validation)
    assert found.leaks == 2
    assert found.notes[0].startswith("2 validation rows")
    assert _profile(rows, DataKind.PAIRS).leaks is None


@pytest.mark.parametrize(("text", "tokens"), [("a", 1), ("abcd", 1), ("abcde", 2), ("日本", 2)])
def test_without_a_tokenizer_the_count_is_an_estimate_and_says_so(text: str, tokens: int) -> None:
    found = profile([{"text": text}], DataKind.TEXT)
    assert found.tokens == tokens
    assert found.counted_by.startswith("estimate")


def test_the_profile_of_unpaired_labels_has_the_share_of_desirable_ones() -> None:
    rows = [{"prompt": "p q", "completion": "a b c", "label": index < 3} for index in range(10)]
    found = _profile(rows, DataKind.UNPAIRED)
    assert found.desirable == 0.3
    assert found.prompt_lengths is not None
    assert (found.prompt_lengths.max, found.target_lengths.max) == (2, 3)
    assert _profile([{"text": "a"}], DataKind.TEXT).desirable is None


def test_a_profile_survives_json() -> None:
    found = _profile([{"text": "a"}], DataKind.TEXT)
    assert Profile.model_validate_json(found.model_dump_json()) == found
