"""Convert a GGUF file to a plain model: `python -P -m workers.import_model.gguf FILE.gguf FOLDER`.

Quantised weights are de-quantised to float32 for training. Their lost precision does not come back; origin.json in the
folder records the quantisation. Exit codes: 0 done, 2 the file cannot be converted (standard output says why).
"""

from __future__ import annotations

import argparse
import json
import resource
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
from luthier.models.base_model import ORIGIN
from workers.import_model import standard_config

UNQUANTISED: Final = ("F64", "F32", "F16", "BF16")
# Padding tokens of common families, dedicated ones first.
PADS: Final = ("<|finetune_right_pad_id|>", "<pad>", "<|pad|>", "[PAD]", "<|endoftext|>", "<unk>", "<|unk|>")


# Limit of the addresses of this process, for files that claim absurd sizes: bytes, and bytes for each of the file. Two
# bits of a file become a float32, which is held a few times over.
LEAST_ADDRESSES: Final = 32 * 2**30
ADDRESSES_PER_BYTE: Final = 64


def convert(gguf: Path, folder: Path) -> None:
    """Write model and tokenizer into the new `folder`, completely or not at all. Raises UserError if that fails."""
    try:
        origin = {"origin": gguf.name, "quantised": quantisation(GGUFReader(gguf))}
        model, tokenizer = _load(gguf)
    except UserError:
        raise
    except Exception as error:  # a damaged file makes the libraries fail with all kinds of errors
        raise UserError(f"{gguf} cannot be converted: {error or type(error).__name__}", param="source") from error
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    (part / ORIGIN).write_text(json.dumps(origin))
    standard_config.standard(part)  # raises for a model that cannot be registered
    part.rename(folder)


def quantisation(reader: Any) -> str | None:
    """Return the type of most of the weights, such as `Q4_1`; None if they are not quantised."""
    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    if not sizes:
        raise ValueError("it contains no tensors")
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -P -m workers.import_model.gguf", description=__doc__)
    parser.add_argument("gguf", type=Path, metavar="FILE.gguf")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder for the model; must not exist")
    options = parser.parse_args(arguments)
    transformers.utils.logging.set_verbosity_error()
    print(f"converting {options.gguf.name} (once)", file=sys.stderr)
    most = LEAST_ADDRESSES + ADDRESSES_PER_BYTE * options.gguf.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        convert(options.gguf, options.folder)
    except UserError as error:
        print(error.message)
        return 2
    print(options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
