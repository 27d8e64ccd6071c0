"""The headers of a model's safetensors files: which tensors they hold. The tensors themselves are not read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from luthier.models import model_files
from luthier.models.model_files import refused
from luthier.values import Frozen

LARGEST_HEADER: Final = 100_000_000  # bytes; the format's own limit
SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
# A second copy of the weights in some folders, in a format that transformers does not read.
OTHER_FORMAT: Final = "consolidated"
BITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
_PART: Final = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors$")


class Tensor(Frozen):
    """A tensor of a file: its type in the words of safetensors, such as BF16, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a model by name. Raises UserError for a file that is missing, cut off or not what it says.

    They are those of the single file, or of the files that the index names: what transformers loads.
    """
    return {name: tensor for inside in by_file(folder).values() for name, tensor in inside.items()}


def by_file(folder: Path) -> dict[Path, dict[str, Tensor]]:
    """Return the tensors of each file of a model by name. Raises UserError as `tensors` does."""
    files = sorted(file for file in folder.glob("*.safetensors") if not file.name.startswith(OTHER_FORMAT))
    index, single = folder / INDEX, folder / SINGLE in files
    by_name = _weight_map(index) if index.exists() and not single else {}
    if single:
        files = [folder / SINGLE]  # transformers reads no others beside it
    elif by_name:
        files = [folder / name for name in sorted(set(by_name.values()))]
    if not files:
        raise refused(folder, "has no *.safetensors weights (pickled weights are never loaded)")
    _check_parts(files)
    if not single and not by_name:
        raise refused(
            folder,
            f"has neither {SINGLE} nor {INDEX}, without which transformers does not find the weights in "
            f"{files[0].name}{' and other files' if len(files) > 1 else ''}. Save the model again with "
            "save_pretrained, or fetch the missing file",
        )
    found: dict[Path, dict[str, Tensor]] = {}
    for file in files:
        inside = found[file] = read(file)
        if lost := [name for name, place in by_name.items() if place == file.name and name not in inside]:
            raise refused(file, f"lacks the tensor {lost[0]}, which {INDEX} places there")
    if not any(math.prod(tensor.shape) for inside in found.values() for tensor in inside.values()):
        raise refused(folder, "has weights without a single number")
    return found


def read(file: Path) -> dict[str, Tensor]:
    """Return the tensors in the header of a file: 8 bytes of length, then JSON. Raises UserError if it is not true."""
    model_files.check(file)
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise refused(file, f"is cut off or no safetensors file: its header needs {length:,} of {size:,} bytes")
        if length > LARGEST_HEADER:
            raise refused(file, f"has a header of {length:,} bytes, and at most {LARGEST_HEADER:,} are allowed")
        content = stream.read(length)
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise refused(file, "is no safetensors file: its header is not valid JSON") from error
    if not isinstance(header, dict):
        raise refused(file, "is no safetensors file: its header is not a JSON object")
    header.pop("__metadata__", None)
    places = {name: _place(file, name, entry) for name, entry in header.items()}
    end = 0
    for (start, stop), name in sorted((place, name) for name, place in places.items()):
        if start != end:
            raise refused(file, f"places the tensor {name} at byte {start:,}, where byte {end:,} is expected")
        end = stop
    if end != size - 8 - length:
        raise refused(file, f"is cut off or damaged: its tensors need {end:,} bytes, and it has {size - 8 - length:,}")
    return {name: Tensor(dtype=entry["dtype"], shape=tuple(entry["shape"])) for name, entry in header.items()}


def _weight_map(index: Path) -> dict[str, str]:
    """Return which file the index names for each tensor."""
    found = model_files.json_object(index, most_bytes=LARGEST_HEADER).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise refused(index, "has no weight_map")
    for name, place in found.items():
        if not isinstance(place, str) or Path(place).name != place or not place.endswith(".safetensors"):
            raise refused(index, f"places the tensor {name} in {place!r}, which is no safetensors file of the folder")
        if not (index.parent / place).exists():
            raise refused(index, f"names the file {place}, which is not there")
    return found


def _check_parts(files: list[Path]) -> None:
    """Raise UserError for a file `…-00001-of-00003` without the others."""
    names = {file.name for file in files}
    for file in files:
        if (found := _PART.search(file.name)) is None:
            continue
        for number in range(1, int(found["count"]) + 1):
            other = f"{file.name[: found.start()]}-{number:05d}-of-{found['count']}.safetensors"
            if other not in names:
                raise refused(file, f"is one of {int(found['count'])} files, and {other} is not there")


def _place(file: Path, name: str, entry: Any) -> tuple[int, int]:
    """Return where a tensor's bytes begin and end. Raises UserError unless they are as many as its shape needs."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)]}:
            pass
        case _:
            raise refused(file, f"is no safetensors file: the header's entry {name} is not that of a tensor")
    if dtype not in BITS:
        raise refused(file, f"has a tensor {name} of the unknown type {dtype}")
    if not all(type(side) is int and side >= 0 for side in shape) or not 0 <= start <= stop:
        raise refused(file, f"has a tensor {name} with an impossible shape or place")
    if math.prod(shape) * BITS[dtype] != (stop - start) * 8:
        raise refused(file, f"has a tensor {name} whose {stop - start:,} bytes are not those of {dtype} {shape}")
    return start, stop
