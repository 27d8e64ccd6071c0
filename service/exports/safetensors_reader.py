"""Read the tensors of a merged model from safetensors blobs, one at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from pydantic import Field

from luthier.blobs import Blobs
from luthier.errors import UserError
from luthier.values import Frozen

Array = np.ndarray[Any, np.dtype[Any]]

# bfloat16 is read as its 16 bits: numpy has no such type.
_TYPES: Final[Mapping[str, np.dtype[Any]]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


class Stored(Frozen):
    """The location of a tensor."""

    type: str = Field(description="as safetensors calls it: F32, F16 or BF16")
    shape: tuple[int, ...]
    blob: str = Field(description="digest")
    start: int = Field(description="offset of its bytes in the blob")
    bytes: int


def find(blobs: Blobs, files: Mapping[str, str]) -> dict[str, Stored]:
    """Return the tensors of the model with these files (path → digest), by name.

    Raises UserError for a tensor that is not float32, float16 or bfloat16.
    """
    found: dict[str, Stored] = {}
    for path, digest in sorted(files.items()):
        if "/" in path or not path.endswith(".safetensors"):
            continue  # subfolders have a reward model's weights
        with blobs.open(digest) as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            if tensor["dtype"] not in _TYPES:
                raise UserError(f"{name} is of type {tensor['dtype']}; expected {', '.join(_TYPES)}", param="format")
            start, end = tensor["data_offsets"]
            found[name] = Stored(
                type=tensor["dtype"],
                shape=tuple(tensor["shape"]),
                blob=digest,
                start=8 + length + start,
                bytes=end - start,
            )
    return found


def read(blobs: Blobs, stored: Stored) -> Array:
    """Return the tensor; a bfloat16 one as its bits (uint16)."""
    with blobs.open(stored.blob) as stream:
        stream.seek(stored.start)
        content = stream.read(stored.bytes)
    return np.frombuffer(content, _TYPES[stored.type]).reshape(stored.shape)


def as_float32(values: Array) -> Array:
    """Return what `read` returned as float32, exactly."""
    if values.dtype == _TYPES["BF16"]:
        return (values.astype("<u4") << 16).view("<f4")
    return values.astype("<f4")
