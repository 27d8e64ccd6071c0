"""Prompts that nearly repeat one another are found; templates with other values are not."""

import hashlib
import json
import random
from collections.abc import Mapping

import datasketch
import numpy as np
import pytest

from luthier.dataset import Row, Splits, near_duplicates, profile, split
from luthier.dataset.common_phrases import same_but_for_phrases
from luthier.dataset.near_duplicates import near_duplicates as search
from luthier.dataset.rows import fold, text_hash
from luthier.dataset.splits import near_duplicates_of
from luthier.errors import DatasetError
from luthier.task import DataKind

LETTERS = random.Random(1)
WORDS = ["".join(LETTERS.choices("abcdefghiklmnoprstuw", k=LETTERS.randint(3, 9))) for _ in range(500)]


def _sentence(seed: int, length: int = 14) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def _groups(prompts: list[str], *, values: bool = True) -> list[set[str]]:
    names = {text_hash(fold(prompt)): prompt for prompt in prompts}
    found = search({name: fold(prompt) for name, prompt in names.items()}, values=values)
    assert found is not None
    groups: dict[str, set[str]] = {}
    for name, group in found.items():
        assert group in found
        groups.setdefault(group, set()).add(names[name])
    return sorted(groups.values(), key=min)


def _rows(prompts: list[str]) -> list[Row]:
    return [{"prompt": prompt, "completion": "yes"} for prompt in prompts]


def _parts(splits: Splits) -> list[list[str]]:
    return [[row["prompt"] for row in part] for part in (splits.train, splits.validation, splits.test)]


BASE = "Write a short letter to the harbour office about the broken lantern on the northern pier"


@pytest.mark.parametrize(
    "variant",
    [
        f"{BASE}.",
        f"Please {BASE[0].lower()}{BASE[1:]}!",
        BASE.replace("broken", "borken"),
        BASE.replace("short ", ""),
        BASE.replace(" ", "  ").upper() + " ...",
        f"{BASE}, thanks",
    ],
)
def test_small_changes_of_a_prompt_are_near_duplicates(variant: str) -> None:
    others = [_sentence(seed) for seed in range(60)]
    assert _groups([BASE, *others, variant]) == [{BASE, variant}]


@pytest.mark.parametrize(
    "prompts",
    [
        [f"What is {a} + {b}?" for a in range(12) for b in range(12)],
        [f"What is {a} {mark} 3 in the ring of integers modulo seven?" for a in range(9) for mark in "+-*/"],
        [f"Translate the following sentence into French: {_sentence(seed, 3)}" for seed in range(80)],
        [f"You are a polite clerk. {_sentence(1, 80)} Now answer this: where is the {word}?" for word in WORDS[:20]],
        [
            f"A farmer has {count} sheep and sells half of them to a neighbour. How many are left?"
            for count in range(50)
        ],
        ["Who?", "Who is it", "Who is he", "Why?", "Why not", "When?"],
        [_sentence(seed) for seed in range(300)],
    ],
    ids=["sums", "operators", "template", "long template", "word problems", "short prompts", "free"],
)
def test_other_values_in_a_template_are_other_prompts(prompts: list[str]) -> None:
    assert _groups(prompts) == []
    kept = split(_rows(prompts), DataKind.PAIRS) if len(prompts) > 9 else None
    assert kept is None or kept.notes == ()


@pytest.mark.parametrize(
    "said",
    [
        "{} Please answer.",
        "Hi, {}",
        "Answer the following question: {}",
        "{} - thanks a lot!",
        "Good day. {} I need it for school.",
    ],
)
@pytest.mark.parametrize(
    "template", ["What is the capital of {}?", "How do I reset my password for the {} application on my phone?"]
)
def test_prompts_of_a_template_with_and_without_a_phrase_are_near_duplicates(template: str, said: str) -> None:
    asked = [template.format(word) for word in WORDS[:100]]
    prompts = [prompt for each in asked for prompt in (each, said.format(each))]
    if said.startswith("Good"):  # two phrases: those with one each tell that they are phrases
        prompts += [prompt for each in asked[:5] for prompt in (f"Good day. {each}", f"{each} I need it for school.")]
    found = _groups(prompts)
    assert len(found) == 100
    assert all(len({text for text in asked if any(text in prompt for prompt in group)}) == 1 for group in found)


@pytest.mark.parametrize(
    "prompts",
    [
        [f"List the {word}{end}" for word in WORDS[:40] for end in ("", " in Kent", " in Essex")],
        [f"Add up: {word}{end}" for word in WORDS[:40] for end in ("", ", 3", ", 4")],
        [f"{speaker}: where is the {word}?" for word in WORDS[:40] for speaker in ("As a pirate", "As a cook")],
        [f"Where is {word}? {WORDS[-n]} says by the sea." for n, word in enumerate(WORDS[:80])],
    ],
    ids=["places", "numbers", "speakers", "values at the end"],
)
def test_values_at_the_ends_of_prompts_are_no_phrases(prompts: list[str]) -> None:
    assert list(same_but_for_phrases(sorted(map(fold, prompts)))) == []


def test_numbers_make_prompts_different_but_not_documents() -> None:
    pages = [f"Page {page}. {_sentence(7, 40)}" for page in (3, 4)] + [_sentence(seed, 40) for seed in range(20, 60)]
    assert _groups(pages) == []
    assert _groups(pages, values=False) == [set(pages[:2])]


def test_groups_do_not_depend_on_the_order_of_the_rows() -> None:
    prompts = [BASE, f"{BASE}!!", f"Please: {BASE}", *[_sentence(seed) for seed in range(40)]]
    expected = near_duplicates_of(_rows(prompts), DataKind.PAIRS)
    shuffled = random.Random(5).sample(prompts, len(prompts))
    assert expected
    assert near_duplicates_of(_rows(shuffled), DataKind.PAIRS) == expected


def test_near_duplicates_are_never_in_two_splits() -> None:
    pairs = [(_sentence(seed), f"{_sentence(seed)}, please") for seed in range(300)]
    splits = split(_rows([prompt for pair in pairs for prompt in pair]), DataKind.PAIRS)
    place = {prompt: index for index, part in enumerate(_parts(splits)) for prompt in part}
    assert len(place) == 600
    assert all(place[one] == place[other] for one, other in pairs)
    assert min(map(len, _parts(splits))) >= 20
    [note] = splits.notes
    assert note.startswith("600 rows")


def test_a_template_that_most_prompts_follow_is_split_by_prompt_and_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [f"{_sentence(3)} {word}" for word in WORDS[:20]] + [_sentence(seed) for seed in range(100, 115)]
    monkeypatch.setattr(near_duplicates, "SIMILARITY", 0.2)
    found = near_duplicates_of(_rows(prompts), DataKind.PAIRS)
    assert found is not None
    assert len(found) >= 20
    splits = split(_rows(prompts), DataKind.PAIRS)
    monkeypatch.undo()
    assert _parts(splits) == _parts(split(_rows(prompts), DataKind.PAIRS))
    [note] = splits.notes
    assert note.startswith(f"{len(found)} rows")
    assert "several splits" in note


def test_groups_that_would_leave_too_few_prompts_are_split_and_noted() -> None:
    pairs = [prompt for seed in range(5) for prompt in (_sentence(seed), f"{_sentence(seed)}, please")]
    splits = split(_rows(pairs), DataKind.PAIRS)
    assert sum(map(len, _parts(splits))) == 10
    assert min(map(len, _parts(splits))) >= 2
    [note] = splits.notes
    assert note.startswith("10 rows")
    assert "several splits" in note


def test_training_rows_that_nearly_repeat_the_validation_file_are_left_out() -> None:
    prompts = [_sentence(seed) for seed in range(100)]
    given = _rows([f"{prompt}, please" for prompt in prompts[:4]] + [prompts[4]])
    splits = split(_rows(prompts), DataKind.PAIRS, validation_rows=given)
    train, validation, test = _parts(splits)
    assert len(validation) == 5
    assert not set(prompts[:5]) & {*train, *test}
    assert len(train) + len(test) == 95
    assert [note.split()[2] for note in splits.notes if note.startswith("Left out")] == ["1", "4"]


def test_beyond_the_limit_nothing_is_searched_for_and_this_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [BASE, f"{BASE}!!", *[_sentence(seed) for seed in range(40)]]
    monkeypatch.setattr(near_duplicates, "MOST_PROMPTS", 41)
    assert near_duplicates_of(_rows(prompts), DataKind.PAIRS) is None
    [note] = split(_rows(prompts), DataKind.PAIRS).notes
    assert "not searched" in note


def test_rows_that_differ_by_white_space_are_all_judged() -> None:
    answers = ["if x:\n    y = 0\n", "IF X: Y = 0", "if x:\n    y = 0\n"]
    rows = [{"prompt": f"code {i}", "completion": answer} for i in range(60) for answer in answers]
    splits = split(rows, DataKind.PAIRS)
    for part in (splits.validation, splits.test):
        assert sorted(row["completion"] for row in part) == sorted(answers[:2] * (len(part) // 2))
    assert len(splits.notes) == 2


def test_files_without_near_duplicates_are_split_as_ever() -> None:
    """The digests were recorded without the search for near-duplicates. Jobs are compared across versions."""
    rows = [{"prompt": f"Question {i % 180}", "completion": f"answer {i % 7}", "id": i} for i in range(400)]
    splits = split(rows, DataKind.PAIRS)
    assert _digest(splits) == "0acf65a0b6ae150fb309823d5035e15a0db49f32fa6df65b48caa39919de228b"
    texts = [{"text": f"Chapter {i}: {'tide moon harbour rope '[i % 5 :]}{i * i}"} for i in range(300)]
    splits = split(texts, DataKind.TEXT, validation_rows=texts[:20])
    assert _digest(splits) == "c49889e5abb2b5fbdb00cfdfd10b5ffb1e4ea95514fd0ca7eb3252b22742322e"


def _digest(splits: Splits) -> str:
    parts = [splits.train, splits.validation, splits.test]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def test_too_few_prompts_are_refused_whether_or_not_they_are_alike() -> None:
    with pytest.raises(DatasetError, match=r"\b4 different prompts"):
        split(_rows([f"{BASE}{end}" for end in ("!", " now", ", please", " thanks")] * 3), DataKind.PAIRS)


def test_signatures_are_those_of_datasketch() -> None:
    sets = [np.unique(np.random.default_rng(seed).integers(0, 2**32, seed + 1, dtype=np.uint32)) for seed in range(40)]
    for found, hashes in zip(near_duplicates.signatures(sets), sets, strict=True):
        sketch = datasketch.MinHash(num_perm=64, hashfunc=int, scheme="affine32")
        sketch.update_batch(hashes.tolist())
        assert found.tolist() == sketch.hashvalues.tolist()


def test_the_same_prompts_are_searched_once_whatever_their_order_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    search_all = near_duplicates._searched

    def counted(texts: Mapping[str, str], *, values: bool) -> dict[str, str]:
        searched.append(len(texts))
        return search_all(texts, values=values)

    monkeypatch.setattr(near_duplicates, "_searched", counted)
    rows = _rows([_sentence(seed, 15) for seed in range(30)] + [f"{_sentence(3, 15)}, please"])
    found = profile(rows, DataKind.PAIRS).near_duplicates
    splits = split([row | {"completion": "no"} for row in reversed(rows)], DataKind.PAIRS)
    assert (found, searched) == (2, [31])
    assert [note.split()[0] for note in splits.notes] == ["2"]
    near_duplicates_of(rows[:-1], DataKind.PAIRS)
    near_duplicates_of([{"text": row["prompt"]} for row in rows], DataKind.TEXT)
    assert searched == [31, 30, 31]


def test_only_the_last_few_results_are_kept() -> None:
    for seed in range(12):
        near_duplicates_of(_rows([_sentence(seed, 16), _sentence(seed + 1, 16)]), DataKind.PAIRS)
    assert 0 < len(near_duplicates._results) <= 4
