"""Convert a GGUF file to a plain model, in a confined child process: files that nobody has checked can claim anything.

Quantised weights are de-quantised to float32 for training. Their lost precision does not come back; origin.json in the
folder records the quantisation.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from luthier.errors import UserError
from luthier.models import confined
from luthier.models.base_model import ORIGIN
from luthier.models.model_files import part_of
from luthier.models.sources import conversion_seconds
from workers.import_model import gguf_header, standard_config

UNQUANTISED: Final = ("F64", "F32", "F16", "BF16")
# Padding tokens of common families, dedicated ones first.
PADS: Final = ("<|finetune_right_pad_id|>", "<pad>", "<|pad|>", "[PAD]", "<|endoftext|>", "<unk>", "<|unk|>")
# Limit of the addresses of the child, for files that claim absurd sizes: bytes, and bytes for each of the file. Two
# bits of a file become a float32, which is held a few times over. A file that it writes has half as many.
LEAST_ADDRESSES: Final = 32 * 2**30
ADDRESSES_PER_BYTE: Final = 64


def work(question: dict[str, str], step: confined.Step) -> None:
    """Convert the file `gguf` of the question into its `folder`. Raises UserError if that fails."""
    transformers.utils.logging.set_verbosity_error()
    gguf = Path(question["gguf"])
    step(f"Converting {gguf.name}")
    convert(gguf, Path(question["folder"]))


def limits(question: dict[str, str]) -> confined.Limits:
    """Return what the conversion of a file may use."""
    size = Path(question["gguf"]).stat().st_size
    most = LEAST_ADDRESSES + ADDRESSES_PER_BYTE * size
    return confined.Limits(cpu_seconds=round(conversion_seconds(size)), memory_bytes=most, file_bytes=most // 2)


def convert(gguf: Path, folder: Path) -> None:
    """Write model and tokenizer into the new `folder`, completely or not at all. Raises UserError if that fails."""
    try:
        origin = {"origin": gguf.name, "quantised": quantisation(gguf_header.read(gguf))}
        model, tokenizer = _load(gguf)
    except UserError:
        raise
    except Exception as error:  # a damaged file makes the libraries fail with all kinds of errors
        raise UserError(f"{gguf} cannot be converted: {confined.describe(error)}", param="source") from error
    part = part_of(folder)
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    (part / ORIGIN).write_text(json.dumps(origin))
    standard_config.standard(part)  # raises for a model that cannot be registered
    part.rename(folder)


def quantisation(reader: GGUFReader) -> str | None:
    """Return the type of most of the weights, such as `Q4_1`; None if they are not quantised."""
    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    usual = sizes.most_common(1)[0][0]
    return None if usual in UNQUANTISED else usual


def _load(gguf: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the file and copy its weights into a clean model, because one loaded from GGUF cannot be saved."""
    pair: Any = AutoModelForCausalLM.from_pretrained(  # transformers' types do not declare the pair
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, output_loading_info=True
    )
    loaded, report = pair
    if missing := sorted(report["missing_keys"]):  # transformers would initialise them at random
        names = ", ".join(missing[:3])
        raise UserError(
            f"{gguf} lacks {len(missing)} of the model's weights ({names} …). If the model has several parts, merge "
            "them first: llama-gguf-split --merge",
            param="source",
        )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    set_pad(tokenizer)
    config: PretrainedConfig = loaded.config
    config.pad_token_id = tokenizer.pad_token_id
    for leftover in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(config, leftover):
            delattr(config, leftover)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def set_pad(tokenizer: PreTrainedTokenizerBase) -> None:
    """Set a padding token that differs from the end token.

    Many files have pad = eos. Trainers that mask padding then also mask the end of every answer, and the model never
    learns to stop.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    vocabulary = tokenizer.get_vocab()
    for pad in PADS:
        if pad in vocabulary and pad != tokenizer.eos_token:
            tokenizer.pad_token = pad
            return


def main() -> int:
    return confined.answer(work, limits)


if __name__ == "__main__":
    sys.exit(main())
