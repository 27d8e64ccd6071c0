"""Read config.json through the config class of its family, which knows its names and defaults.

GPT-2 calls the width `n_embd`, MPT `d_model`; a multimodal model keeps all of it in `text_config`. transformers maps
these to the standard names. Values that no model can have are refused before the class sees them: some classes build
lists of as many entries as there are layers. This module needs transformers, but not torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import transformers
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

from luthier.errors import UserError
from luthier.models import model_files
from luthier.models.base_model import CONTEXTS, DECODERS, HEADLESS_ENCODERS, StandardConfig, unsupported
from luthier.models.confined import describe
from workers.import_model.neutral_config import neutral, quantisation_fault

NAME: Final = "config.json"
TEXT: Final = "text_config"
_CODE: Final = "code that comes with a model is never run"
# Limits by standard name, wider than any model; values that must be a number, if they are given at all, come first.
REQUIRED: Final[Mapping[str, int]] = {
    "hidden_size": 2**20,
    "num_hidden_layers": 4096,
    "vocab_size": 2**27,
    **dict.fromkeys(CONTEXTS, 2**31),
}
NULLABLE: Final[Mapping[str, int]] = {
    "num_attention_heads": 2**16,
    "num_key_value_heads": 2**16,
    "intermediate_size": 2**24,
    "head_dim": 2**16,
    "num_experts": 2**16,
    "num_local_experts": 2**16,
    "n_routed_experts": 2**16,
}
_STANDARD: Final = (*REQUIRED, *NULLABLE)


def standard(folder: Path) -> StandardConfig:
    """Return the configuration of a saved model. Raises UserError naming the field that is wrong, and for models that
    are neither decoders nor encoders."""
    config, architecture = load(folder)
    family = _family(folder, config, architecture)
    part = config.get_text_config(decoder=True)
    named = {name: getattr(part, name) for name in _STANDARD if getattr(part, name, None) is not None}
    values = {**part.to_dict(), **named, "model_type": part.model_type}
    loaded = _text_class(config.model_type, architecture)
    return StandardConfig(
        architecture=loaded or architecture, family=family, values=values, text_part=loaded is not None
    )


def load(folder: Path) -> tuple[PretrainedConfig, str]:
    """Return a model's config and the name of its class. Raises UserError."""
    raw = model_files.json_object(folder / NAME)
    kind = raw.get("model_type")
    if not isinstance(kind, str):
        raise _fault(folder, "names no model_type")
    if kind not in CONFIG_MAPPING:
        if "auto_map" in raw:
            raise _fault(folder, f"has the model_type {kind}, which is not part of transformers; {_CODE}")
        raise _fault(folder, f"has the model_type {kind}, which transformers {transformers.__version__} does not know")
    architecture = _architecture(folder, raw, kind)
    _check_values(folder, raw)
    if (why := quantisation_fault(raw)) is not None:
        raise _fault(folder, why)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        return neutral(config), architecture
    except Exception as error:  # the classes check their values in many ways
        raise _fault(folder, f"is refused by transformers: {describe(error)}") from error


def _architecture(folder: Path, raw: Mapping[str, Any], kind: str) -> str:
    """Return the name of the model's class; if the file has none, that of the family's language model."""
    match raw.get("architectures"):
        case [str(name), *_]:
            return name
        case None | []:
            mapped = MODEL_FOR_MASKED_LM_MAPPING_NAMES.get(kind) or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
            if mapped is None:
                raise unsupported(folder, f"a model of the type {kind}")
            return str(mapped)
        case _:
            raise _fault(folder, "has architectures that are not a list of names")


def _text_class(kind: str, architecture: str) -> str | None:
    """Return the class of the text part that transformers takes out of a multimodal model when it loads a causal
    language model (Qwen 3.5, Llama 4); None for other models, and where it loads the whole (Gemma 3)."""
    mapped = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    whole = MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.get(kind)
    if not isinstance(mapped, str) or architecture != whole or mapped == whole:
        return None
    return mapped if TEXT in CONFIG_MAPPING[kind].sub_configs else None


def _family(folder: Path, config: PretrainedConfig, architecture: str) -> Any:
    kind = config.model_type
    if config.is_encoder_decoder:
        raise unsupported(folder, f"{architecture}, an encoder–decoder,")
    if architecture in HEADLESS_ENCODERS or architecture.endswith("ForMaskedLM"):
        if kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            raise unsupported(folder, f"{architecture} of the type {kind}")
        return "encoder"
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise unsupported(folder, f"{architecture}, which is no language model for text alone in transformers,")
    if _text_class(kind, architecture) is not None:
        return "decoder"
    if not architecture.endswith(DECODERS) and architecture != MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]:
        raise unsupported(folder, architecture)
    if architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        raise _fault(folder, f"has the class {architecture}, which is not part of transformers; {_CODE}")
    return "decoder"


def _check_values(folder: Path, raw: Mapping[str, Any]) -> None:
    """Raise UserError for a size that no model can have, in the config or in that of its text part."""
    parts = [raw]
    if TEXT in raw:
        if not isinstance(raw[TEXT], dict):
            raise _fault(folder, f"has a {TEXT} that is not an object")
        parts.append(raw[TEXT])
    for part in parts:
        found: dict[str, int] = {}
        for written, name, most in _sizes(part):
            value = part[written]
            if value is None and name in NULLABLE:
                continue
            if type(value) is not int or not 1 <= value <= most:
                raise _fault(folder, f"says {written} = {value!r:.60}, and not a whole number from 1 to {most:,}")
            found[name] = value
        _check_heads(folder, found)


def _sizes(part: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Yield the sizes in a config: the name that is written there, the standard one, and the largest value."""
    known = CONFIG_MAPPING[part["model_type"]] if part.get("model_type") in CONFIG_MAPPING else PretrainedConfig
    limits = {**REQUIRED, **NULLABLE}
    for name, most in limits.items():
        for written in {name, known.attribute_map.get(name, name)}:
            if written in part and not isinstance(part[written], list):  # some families list one value per layer
                yield written, name, most


def _check_heads(folder: Path, found: Mapping[str, int]) -> None:
    heads, width = found.get("num_attention_heads"), found.get("hidden_size")
    if heads is None or width is None:
        return
    if width % heads and "head_dim" not in found:
        raise _fault(folder, f"says that {heads} attention heads share {width} dimensions, which are not divisible")
    if heads % found.get("num_key_value_heads", 1):
        raise _fault(
            folder,
            f"says that {heads} heads share {found['num_key_value_heads']} key/value heads, which does "
            "not come out even",
        )


def _fault(folder: Path, why: str) -> UserError:
    return model_files.refused(folder / NAME, why)
