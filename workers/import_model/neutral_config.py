"""A model's config without the settings of its last user, which are no part of the model.

Some folders are saved with an attention implementation that is not installed here, or with tuples in place of named
outputs, or name code that came with the model, which is never run. What the weights compute does not depend on these,
but the engine does, or what loads an export. Quantised weights are unpacked when
they are loaded, where transformers can do so: they are trained in float32. Others are refused. This module needs
transformers, but not torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from transformers import PretrainedConfig

QUANTISED: Final = "quantization_config"
CODE: Final = "auto_map"
# Types of weights that transformers itself can unpack, on any device.
UNPACKED: Final = ("fp8", "mxfp4")
_METHOD: Final = "quant_method"


def neutral(config: PretrainedConfig) -> PretrainedConfig:
    """Return the config itself, with the outputs and the attention that transformers chooses by default."""
    for part in _parts(config):
        part.output_hidden_states = False
        part.output_attentions = False
        part.return_dict = True
        part._attn_implementation = None
        vars(part).pop(CODE, None)
        packed = getattr(part, QUANTISED, None)
        if isinstance(packed, dict) and packed.get(_METHOD) in UNPACKED:
            packed["dequantize"] = True
    return config


def quantisation_fault(raw: Mapping[str, Any]) -> str | None:
    """Return why the quantised weights of a config.json cannot be trained; None if they can, or are not quantised."""
    for field, part in (("", raw), ("text_config.", raw.get("text_config"))):
        settings = part.get(QUANTISED) if isinstance(part, dict) else None
        if settings is None:
            continue
        method = settings.get(_METHOD) if isinstance(settings, dict) else None
        if method is None and isinstance(settings, dict) and {"load_in_4bit", "load_in_8bit"} & settings.keys():
            method = "bitsandbytes"
        if method not in UNPACKED:
            return (
                f"says {field}{QUANTISED}.{_METHOD} = {method!r:.60}: such weights cannot be trained. Register the "
                f"model before it was quantised (weights in {' or '.join(UNPACKED)} are unpacked)"
            )
    return None


def _parts(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    """Yield the config and those inside it."""
    yield config
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if isinstance(part, PretrainedConfig):
            yield from _parts(part)
