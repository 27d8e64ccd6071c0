"""The header of a GGUF file, read with care: what it claims must fit the file before anything is built from it.

magic "GGUF", version, number of tensors, number of settings, the settings, the tensors' names, shapes and places
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gguf import GGUFReader

from luthier.models import model_files
from luthier.models.confined import describe
from luthier.models.model_files import refused

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
_FIXED: Final = struct.Struct("<4sIQQ")  # magic, version, numbers of tensors and settings
_LEAST_TENSOR, _LEAST_SETTING = 24, 13  # bytes of the shortest entry
_BLOCK: Final = re.compile(r"^blk\.(\d+)\.")
_EMBEDDINGS: Final = "token_embd.weight"
# Sizes by the end of their names, after the architecture: the least and the largest value, wider than any model.
LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "block_count": (1, 4096),
    "embedding_length": (1, 2**20),
    "context_length": (1, 2**31),
    "vocab_size": (1, 2**27),
    "feed_forward_length": (0, 2**24),
    "expert_feed_forward_length": (0, 2**24),
    "expert_count": (0, 2**16),
    "expert_used_count": (0, 2**16),
    "attention.head_count": (0, 2**16),
    "attention.head_count_kv": (0, 2**16),
    "attention.key_length": (0, 2**16),
    "attention.value_length": (0, 2**16),
    "rope.dimension_count": (0, 2**16),
}


def read(file: Path) -> GGUFReader:
    """Return the reader of a GGUF file. Raises UserError where its header is not that of a whole model."""
    model_files.check(file)
    _check_start(file)
    try:
        reader = GGUFReader(file)
    except Exception as error:  # numpy's errors, where an entry reaches beyond the end
        size = file.stat().st_size
        raise refused(
            file,
            f"is cut off or damaged: its {size:,} bytes do not hold the settings and tensors that its header lists "
            f"({describe(error)})",
        ) from error
    if not reader.tensors:
        raise refused(file, "has no tensors")
    _check_sizes(file, reader)
    return reader


def _check_start(file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(_FIXED.size)
    if start[:4] != MAGIC:
        raise refused(file, "is no GGUF file: it does not begin with the letters GGUF")
    if len(start) < _FIXED.size:
        raise refused(file, f"is cut off: it has {size:,} bytes, fewer than the header of a GGUF file")
    _, version, tensors, settings = _FIXED.unpack(start)
    if version & 0xFFFF == 0:
        raise refused(file, "is a GGUF file for big-endian machines; convert the model again for little-endian ones")
    if version not in VERSIONS:
        raise refused(file, f"has version {version:,} of the GGUF format, and versions 2 and 3 can be read")
    if _FIXED.size + tensors * _LEAST_TENSOR + settings * _LEAST_SETTING > size:
        raise refused(
            file,
            f"is cut off or damaged: its header lists {tensors:,} tensors and {settings:,} settings, and it has "
            f"{size:,} bytes",
        )


def _check_sizes(file: Path, reader: GGUFReader) -> None:
    shapes = {tensor.name: [int(side) for side in tensor.shape] for tensor in reader.tensors}
    for name, field in reader.fields.items():
        _, _, size = name.partition(".")
        if size not in LIMITS:
            continue
        least, most = LIMITS[size]
        contents: Any = field.contents()
        for value in contents if isinstance(contents, list) else [contents]:  # some families list one per layer
            if type(value) is not int or not least <= value <= most:
                raise refused(file, f"says {name} = {value!r:.60}, and not a whole number from {least} to {most:,}")
            _check_fits(file, name, size, value, shapes)


def _check_fits(file: Path, name: str, size: str, value: int, shapes: Mapping[str, list[int]]) -> None:
    blocks = {int(found[1]) for tensor in shapes if (found := _BLOCK.match(tensor))}
    if size == "block_count" and value > len(blocks):
        raise refused(
            file,
            f"says {name} = {value:,}, and has the tensors of {len(blocks)} blocks. If the model has several parts, "
            "merge them first: llama-gguf-split --merge",
        )
    embeddings = shapes.get(_EMBEDDINGS)
    if size == "embedding_length" and embeddings is not None and value != embeddings[0]:
        raise refused(file, f"says {name} = {value:,}, and {_EMBEDDINGS} has the shape {embeddings}")
