"""Read numbers of a model's weights: they must be finite, not all zero, and no integers.

Up to a gigabyte is read whole. Of larger models each matrix is sampled in slices of whole rows, evenly spaced.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import prod
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open

from luthier.models import safetensors_header
from luthier.models.safetensors_header import BITS, Tensor

READ: Final = 2**30  # bytes in all
SLICE: Final = 2**24  # bytes that are in memory at once
SAMPLES: Final = 8  # slices of a large matrix
_NUMBERS: Final = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_INTEGERS: Final = ("I64", "U64", "I32", "U32", "I16", "U16", "I8", "U8", "BOOL")


def fault(folder: Path, parameters: Collection[str]) -> str | None:
    """Return what is wrong with the numbers of a folder, as a sentence; None if nothing was found.

    `parameters` are the names in the class. Buffers, such as masks and positions, may hold anything.
    """
    files = {
        file: {name: tensor for name, tensor in inside.items() if name in parameters or name.endswith("weight")}
        for file, inside in safetensors_header.by_file(folder).items()
    }
    found = {name: tensor for inside in files.values() for name, tensor in inside.items()}
    for name, tensor in found.items():
        if tensor.dtype in _INTEGERS and len(tensor.shape) > 1:
            return (
                f"has {name} as integers ({tensor.dtype}), and its config.json does not say how they were quantised. "
                "Register the model before it was quantised"
            )
    share = READ / max(1, sum(map(_bytes, found.values())))
    zeros: list[bool] = []  # for each matrix, whether it is zero
    for file, inside in files.items():
        with safe_open(file, framework="pt") as opened:
            for name, tensor in inside.items():
                if tensor.dtype not in _NUMBERS or not _bytes(tensor):
                    continue
                zero = True
                for numbers in _slices(opened.get_slice(name), tensor, share):
                    if not numbers.isfinite().all():
                        return f"has numbers in {name} that are not finite (NaN or infinity)"
                    zero = zero and not numbers.any()
                if len(tensor.shape) > 1:
                    zeros.append(zero)
    if zeros and all(zeros):
        return f"has only zeros in its {len(zeros)} matrices, so there is nothing to train on"
    return None


def _slices(stored: Any, tensor: Tensor, share: float) -> Iterator[torch.Tensor]:
    """Yield slices of a stored tensor: about this share of its numbers, all of them from 1.0 on."""
    if not tensor.shape:
        yield stored[...].float()
        return
    rows = tensor.shape[0]
    together = max(1, min(rows, SLICE * rows // _bytes(tensor)))
    if share >= 1.0:
        starts = range(0, rows, together)
    else:
        together = max(1, min(together, round(rows * share / SAMPLES)))
        starts = range(0, rows, max(together, round(together / share)))
    for start in starts:
        yield stored[start : start + together].float()


def _bytes(tensor: Tensor) -> int:
    return prod(tensor.shape) * BITS[tensor.dtype] // 8
