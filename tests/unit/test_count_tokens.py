"""Tokens are counted many texts at a time, in a process of their own."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from luthier.models.count_tokens import Counters, Uncounted


def _tokenizer(path: Path) -> Path:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(path))
    return path


def test_each_text_has_its_number(tmp_path: Path) -> None:
    file = _tokenizer(tmp_path / "tokenizer.json")
    counters = Counters()
    assert counters.count(file, ["a b", "", "é a\nc \u2028 d"]) == [2, 0, 4]
    assert counters.count(file, [f"{'a ' * n}" for n in range(3_000)]) == list(range(3_000))
    assert counters.count(file, []) == []


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    with pytest.raises(Uncounted, match=r"tokenizer\.json cannot count"):
        Counters().count(file, ["a"])
