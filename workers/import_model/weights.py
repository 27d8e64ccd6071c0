"""Compare a folder's tensors with those of the class that its configuration names: their shapes, types and numbers.

A confined child process runs this module. It builds the whole model without memory for its weights (on torch's meta
device), and lets transformers place tensors without content there, as when it loads a model: renamed, fused or split
first, and tied ones once. What transformers leaves out by design is left out here. A model that transformers cannot
build from its configuration is refused too. What the tensors hold is checked in `weight_values`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig

from luthier.models import confined, safetensors_header
from workers.import_model import standard_config, weight_values
from workers.import_model.neutral_config import QUANTISED

CPU_SECONDS: Final = 120
MEMORY_BYTES: Final = 32 * 2**30  # of addresses: the libraries map many files


def work(question: dict[str, str], step: confined.Step) -> str | None:
    """Return what does not fit in the `folder` of the question, as a sentence; None where nothing was found."""
    folder = Path(question["folder"])
    step(f"Comparing the weights of {folder} with its configuration")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    config, _ = standard_config.load(folder)
    encoder = standard_config.standard(folder).family == "encoder"
    try:
        model = hollow(config, encoder=encoder)
    except MemoryError:
        raise
    except Exception as error:  # any family's code may fail in any way on values that it does not know
        return f"cannot be built by transformers from its {standard_config.NAME}: {confined.describe(error)}"
    if getattr(config, QUANTISED, None) is not None:
        return None
    try:
        found = misfit(folder, model, encoder=encoder)
    except Exception as error:  # any family's code may fail in any way without memory for the weights
        print(f"{folder} is not compared: {confined.describe(error)}", file=sys.stderr)
        found = None
    if found is None:
        step(f"Reading numbers of the weights of {folder}")
        found = weight_values.fault(folder, {name for name, _ in model.named_parameters()})
    return found


def misfit(folder: Path, model: PreTrainedModel, *, encoder: bool) -> str | None:
    """Return which tensor has another shape than the hollow model expects, or is missing; None if all fit."""
    expected = {name: list(tensor.shape) for name, tensor in model.named_parameters()}
    tensors = {
        name: torch.empty(tensor.shape, dtype=torch.float32, device="meta")
        for name, tensor in safetensors_header.tensors(folder).items()
    }
    conversions: Any = get_model_conversion_mapping(model)  # transformers' types are narrower in one of the two places
    loading = LoadStateDictConfig(device_map={"": "meta"}, dtype=torch.float32, weight_mapping=conversions)
    found, _ = convert_and_load_state_dict_in_model(model, tensors, loading, None)
    for name, given, wanted in sorted(found.mismatched_keys):
        return f"has {name} of the shape {list(given)}, and its configuration needs {list(wanted)}"
    for name, why in sorted(found.conversion_errors.items()):
        return f"has tensors that cannot be made into {name} of the shape {expected.get(name)}: {_last_line(why)}"
    model.tie_weights(missing_keys=found.missing_keys, recompute_mapping=False)
    model._adjust_missing_and_unexpected_keys(found)
    inside = f"{model.base_model_prefix}." if encoder else ""  # an encoder may lack its head
    for name in sorted(found.missing_keys & expected.keys()):
        if name.startswith(inside):
            return f"lacks {name} of the shape {expected[name]}, which its configuration needs"
    return None


def hollow(config: PretrainedConfig, *, encoder: bool) -> PreTrainedModel:
    """Return the model of a configuration, as the worker makes it, without memory for its weights."""
    family: Any = AutoModelForMaskedLM if encoder else AutoModelForCausalLM
    with torch.device("meta"):
        model: PreTrainedModel = family.from_config(config, dtype=torch.float32)
    return model


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][: confined.ERROR_CHARACTERS] if lines else "unknown"


def main() -> int:
    return confined.answer(work, lambda question: confined.Limits(cpu_seconds=CPU_SECONDS, memory_bytes=MEMORY_BYTES))


if __name__ == "__main__":
    sys.exit(main())
