"""What the header of a GGUF file claims must fit the file, before anything is built from it."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from luthier.errors import UserError
from tests import broken_models, tiny_gguf
from tests.conftest import TINY
from workers.import_model import gguf_header

Change = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    tiny_gguf.write(TINY, file, gguf.GGMLQuantizationType.Q8_0)
    return file


def setting(name: str, value: int) -> Change:
    """Overwrite a 32-bit setting of the header."""

    def change(data: bytes) -> bytes:
        place = data.index(name.encode()) + len(name) + 4  # after the type
        return data[:place] + struct.pack("<I", value) + data[place + 4 :]

    return change


def start(version: int = 3, tensors: int = 56, settings: int = 20, order: str = "<") -> Change:
    return lambda data: data[:4] + struct.pack(f"{order}IQQ", version, tensors, settings) + data[24:]


BROKEN: dict[str, tuple[Change, str]] = {
    "no bytes": (lambda data: b"", "no GGUF file"),
    "a picture": (lambda data: b"\x89PNG" + data[4:], "no GGUF file"),
    "a pointer of Git LFS": (lambda data: broken_models.POINTER.encode(), "Git LFS"),
    "ten bytes": (lambda data: data[:10], "cut off"),
    "cut off in the settings": (lambda data: data[:3000], "cut off"),
    "cut off in the tensors": (lambda data: data[: int(len(data) * 0.9)], "cut off"),
    "for other machines": (start(order=">"), "big-endian"),
    "of the first version": (start(version=1), "version 1 "),
    "of a version to come": (start(version=77), "version 77 "),
    "more tensors than bytes": (start(tensors=10**12), "1,000,000,000,000 tensors"),
    "more settings than bytes": (start(settings=2**40), "settings"),
    "more settings than there are": (start(settings=400), "cut off or damaged"),
    "more blocks than any model has": (setting("llama.block_count", 5_000_000), r"llama\.block_count = 5000000"),
    "more blocks than tensors": (setting("llama.block_count", 7), r"llama\.block_count = 7, .* 6 blocks"),
    "no blocks": (setting("llama.block_count", 0), r"llama\.block_count = 0"),
    "another width": (setting("llama.embedding_length", 4096), r"llama\.embedding_length = 4,096"),
    "no context": (setting("llama.context_length", 0), r"llama\.context_length = 0"),
    "absurdly many heads": (setting("llama.attention.head_count", 2**31), r"llama\.attention\.head_count"),
    "an absurd inner width": (setting("llama.feed_forward_length", 2**30), r"llama\.feed_forward_length"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_header_that_claims_what_is_not_there_is_refused_at_once(name: str, whole: Path, tmp_path: Path) -> None:
    change, named = BROKEN[name]
    file = tmp_path / "broken.gguf"
    file.write_bytes(change(whole.read_bytes()))
    started = time.monotonic()
    with pytest.raises(UserError, match=named) as refused:
        gguf_header.read(file)
    assert refused.value.param == "source"
    assert str(file) in refused.value.message
    assert time.monotonic() - started < 10


def test_a_whole_file_is_read(whole: Path) -> None:
    assert len(gguf_header.read(whole).tensors) == 56
