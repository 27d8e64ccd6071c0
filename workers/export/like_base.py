"""What an export keeps from its base model: the type of the weights, the generation settings, the padding token.

Training and scoring use float32. A base in bfloat16 is exported in bfloat16 all the same: what loads and serves the
base loads and serves the export. The scores of the export differ from those of the trial by the rounding.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Final

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from luthier.errors import TrialFailed, UserError
from luthier.models import model_files, safetensors_header

CONFIG: Final = "config.json"
GENERATION: Final = "generation_config.json"
_TYPES: Final = {"BF16": torch.bfloat16, "F16": torch.float16}


def checkpoint_dtype(source: Path) -> torch.dtype:
    """Return the type of most of a model's weights; float32 for any but the two half-precision types."""
    numbers: Counter[str] = Counter()
    for tensor in safetensors_header.tensors(source).values():
        numbers[tensor.dtype] += prod(tensor.shape)
    return _TYPES.get(numbers.most_common(1)[0][0], torch.float32)


def save_model(model: PreTrainedModel, folder: Path, source: Path) -> None:
    """Save a model as its base in `source` was saved. The model itself has the type of the base from then on.

    Raises TrialFailed if the folder is then no whole model.
    """
    own = source / GENERATION
    torch.nn.Module.to(model, checkpoint_dtype(source))
    if own.is_file():
        model.generation_config = GenerationConfig()  # transformers refuses to save settings that it finds inconsistent
    model.save_pretrained(folder)
    if own.is_file():
        shutil.copyfile(own, folder / GENERATION)
    check_whole(model, folder)


def check_whole(model: PreTrainedModel, folder: Path) -> None:
    """Raise TrialFailed unless a folder holds the config and all the weights of a model.

    transformers saves something else of models that it takes for adapted ones. Numbers are counted, because it renames
    and splits tensors when it saves them.
    """
    left_out = set(model._keys_to_ignore_on_save or ())
    needed = sum(tensor.numel() for name, tensor in model.named_parameters() if name not in left_out)
    try:
        written = sum(prod(tensor.shape) for tensor in safetensors_header.tensors(folder).values())
    except UserError as error:
        raise TrialFailed(f"the export is not whole: {error.message}") from error
    if not (folder / CONFIG).is_file() or written < needed:
        names = ", ".join(sorted(file.name for file in folder.iterdir()))
        raise TrialFailed(
            f"the export is not whole: {written:,} of {needed:,} parameters were saved, in the files {names}"
        )


def stop_at(folder: Path, ends: Sequence[int]) -> None:
    """Name the tokens that end an answer in the saved generation settings: whatever serves the model stops there."""
    file = folder / GENERATION
    if ends and file.is_file():
        settings = json.loads(file.read_text("utf-8")) | {"eos_token_id": list(ends) if len(ends) > 1 else ends[0]}
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def own_pad(tokenizer: PreTrainedTokenizerBase, source: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer with the padding token of the base: none, where only the worker pads with the end token."""
    if tokenizer.pad_token is None or tokenizer.pad_token != tokenizer.eos_token:
        return tokenizer
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (source / name).is_file() and model_files.json_object(source / name).get("pad_token") is not None:
            return tokenizer
    own = copy.deepcopy(tokenizer)
    own.pad_token = None
    return own
