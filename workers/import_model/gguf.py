"""From a GGUF file to a plain model: `python -P -m workers.import_model.gguf FILE.gguf FOLDER`.

Quantised weights are de-quantised to float32, which is what training needs; what they lost stays lost, and the folder's
origin.json says so. Exit codes: 0 done, 2 the file cannot be converted (standard output says why).
"""

from __future__ import annotations

import argparse
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
from luthier.models.base_model import ORIGIN, read_facts

UNQUANTISED: Final = ("F64", "F32", "F16", "BF16")
# Padding tokens of the usual families, the ones made for it first.
PADS: Final = ("<|finetune_right_pad_id|>", "<pad>", "<|pad|>", "[PAD]", "<|endoftext|>", "<unk>", "<|unk|>")


def convert(gguf: Path, folder: Path) -> None:
    """Write the model and its tokenizer into the new `folder`, whole or not at all. Raises UserError."""
    try:
        origin = {"origin": gguf.name, "quantised": quantisation(GGUFReader(gguf))}
        model, tokenizer = _load(gguf)
    except UserError:
        raise
    except Exception as error:  # a damaged file fails anywhere inside the libraries, with any error
        raise UserError(f"{gguf} cannot be converted: {error or type(error).__name__}", param="source") from error
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    (part / ORIGIN).write_text(json.dumps(origin))
    read_facts(part)
    part.rename(folder)


def quantisation(reader: Any) -> str | None:
    """The type that most of the weights are in, e.g. `Q4_1`; None where they are plain numbers."""
    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    if not sizes:
        raise ValueError("it holds no tensors")
    usual = sizes.most_common(1)[0][0]
    return None if usual in UNQUANTISED else usual


def _load(gguf: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model loaded from GGUF cannot be saved as it is, so its weights go into a clean one."""
    pair: Any = AutoModelForCausalLM.from_pretrained(  # transformers' types do not know that it is one
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, output_loading_info=True
    )
    loaded, report = pair
    if missing := sorted(report["missing_keys"]):  # transformers would leave them at random
        names = ", ".join(missing[:3])
        raise UserError(
            f"{gguf} lacks {len(missing)} of the model's weights, {names} among them: of a file in several parts, "
            "merge the parts first (llama-gguf-split --merge)",
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
    """A padding token other than the end token: with pad = eos, which many files say, trainers that mask padding away
    mask the end of every answer too, and it is never learnt."""
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
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write the model; must not exist")
    options = parser.parse_args(arguments)
    transformers.utils.logging.set_verbosity_error()
    print(f"converting {options.gguf.name} (once)", file=sys.stderr)
    try:
        convert(options.gguf, options.folder)
    except UserError as error:
        print(error.message)
        return 2
    print(options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
