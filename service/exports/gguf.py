"""Write a merged model as one GGUF file, like llama.cpp's own converter, while it is streamed.

Values are exact: matrices keep their type, vectors become float32, and nothing is quantised (`llama-quantize` does
that). Supported are models of the Llama, Mistral, Qwen 2 and Qwen 3 families with byte-level BPE.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from luthier.blobs import Blobs
from luthier.errors import UserError
from service.exports import gguf_tokenizer, safetensors_reader, tokenizer_process
from service.exports.safetensors_reader import Array, Stored

# transformers' class → llama.cpp's architecture.
ARCHITECTURES: Final = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MistralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
}
_ALIGNMENT: Final = gguf.GGUF_DEFAULT_ALIGNMENT
_WIDTHS: Final = {Type.F32: 4, Type.F16: 2, Type.BF16: 2}
_FILE_TYPES: Final = {
    Type.F32: gguf.LlamaFileType.ALL_F32,
    Type.F16: gguf.LlamaFileType.MOSTLY_F16,
    Type.BF16: gguf.LlamaFileType.MOSTLY_BF16,
}


class GgufFile:
    """The GGUF file of the merged model with these blobs (path → digest). `bytes` is its length.

    Raises UserError at once for a model that llama.cpp would not compute exactly.
    """

    def __init__(self, blobs: Blobs, files: Mapping[str, str], name: str) -> None:
        self._blobs = blobs
        config = _json(blobs, files, "config.json")
        architecture = _architecture(config)
        self.tokenizer = _tokenizer(blobs, files, config)
        writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[architecture])
        writer.add_name(name)
        _describe(writer, config)
        gguf_tokenizer.write(self.tokenizer.vocabulary, writer)
        self._contents: list[Callable[[], Array]] = []
        names = gguf.get_tensor_name_map(architecture, int(config["num_hidden_layers"]))
        self.bytes = 0
        widest = Type.F32
        if (factors := _rope_factors(config)) is not None:
            self._add(writer, "rope_freqs.weight", factors.shape, Type.F32, lambda: factors)
        for theirs, stored in safetensors_reader.find(blobs, files).items():
            ours = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
            if ours is None:
                raise _refused(f"llama.cpp does not know its tensor {theirs}")
            kind = Type[stored.type] if len(stored.shape) > 1 else Type.F32
            widest = kind if len(stored.shape) > 1 else widest
            heads = _permuted_heads(theirs, config) if architecture is gguf.MODEL_ARCH.LLAMA else None
            self._add(writer, ours, stored.shape, kind, partial(self._values, stored, heads))
        writer.add_file_type(_FILE_TYPES[widest])
        self._head = _head(writer)
        self.bytes += len(self._head)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        for content in self._contents:
            piece = content().tobytes()
            yield piece
            yield bytes(-len(piece) % _ALIGNMENT)

    def _add(
        self,
        writer: gguf.GGUFWriter,
        name: str,
        shape: tuple[int, ...],
        kind: Type,
        content: Callable[[], Array],
    ) -> None:
        size = math.prod(shape) * _WIDTHS[kind]
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind)
        self._contents.append(content)
        self.bytes += gguf.GGUFWriter.ggml_pad(size, _ALIGNMENT)

    def _values(self, stored: Stored, heads: int | None) -> Array:
        values = safetensors_reader.read(self._blobs, stored)
        if len(stored.shape) == 1:
            values = safetensors_reader.as_float32(values)
        return values if heads is None else _permuted(values, heads)


def _architecture(config: Mapping[str, Any]) -> gguf.MODEL_ARCH:
    name = (config.get("architectures") or ["unknown"])[0]
    if name not in ARCHITECTURES:
        raise _refused(f"it is a {name}, not one of {', '.join(ARCHITECTURES)}")
    if config.get("hidden_act") != "silu":
        raise _refused(f"its activation is {config.get('hidden_act')}, but llama.cpp would use silu")
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if window is not None and window < config["max_position_embeddings"]:
        raise _refused(f"llama.cpp would ignore its attention window of {window} tokens")
    return ARCHITECTURES[name]


def _describe(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    heads, width = int(config["num_attention_heads"]), _head_width(config)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(width)
    writer.add_vocab_size(config["vocab_size"])
    rope = config["rope_parameters"]
    writer.add_rope_freq_base(rope["rope_theta"])
    match rope["rope_type"]:
        case "default" | "llama3":
            pass
        case "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
        case "yarn":
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(rope["factor"])
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        case other:
            raise _refused(f"llama.cpp does not support its RoPE scaling {other}")


def _rope_factors(config: Mapping[str, Any]) -> Array | None:
    """Return the factors by which Llama 3 divides the RoPE frequencies (transformers' `_compute_llama3_parameters`)."""
    rope = config["rope_parameters"]
    if rope["rope_type"] != "llama3":
        return None
    width = _head_width(config)
    turns = rope["rope_theta"] ** -(np.arange(0, width, 2, dtype=np.float64) / width)
    fit = rope["original_max_position_embeddings"] * turns / (2 * math.pi)  # turns within the original context
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((fit - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - smooth) / rope["factor"] + smooth), np.float32)


def _head_width(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _permuted_heads(name: str, config: Mapping[str, Any]) -> int | None:
    """Return the number of heads of a tensor whose rows llama.cpp permutes; None for other tensors."""
    layer = name.rpartition(".")[0]
    if layer.endswith("q_proj"):
        return int(config["num_attention_heads"])
    if layer.endswith("k_proj"):
        return int(config.get("num_key_value_heads") or config["num_attention_heads"])
    return None


def _permuted(values: Array, heads: int) -> Array:
    """Permute a Llama tensor: llama.cpp rotates neighbouring pairs of a head, transformers its two halves."""
    rows, *rest = values.shape
    return values.reshape(heads, 2, rows // heads // 2, *rest).swapaxes(1, 2).reshape(values.shape)


def _tokenizer(blobs: Blobs, files: Mapping[str, str], config: Mapping[str, Any]) -> tokenizer_process.Read:
    settings = _json(blobs, files, "tokenizer_config.json")
    template = _text(blobs, files, "chat_template.jinja") if "chat_template.jinja" in files else None
    generation = _json(blobs, files, "generation_config.json") if "generation_config.json" in files else {}
    named = generation.get("eos_token_id")
    ends = named if isinstance(named, list) else [] if named is None else [named]
    return tokenizer_process.read(
        _text(blobs, files, "tokenizer.json"), settings, template, int(config["vocab_size"]), ends
    )


def _head(writer: gguf.GGUFWriter) -> bytes:
    """Return everything before the tensors. `gguf` writes it only to files."""
    with tempfile.TemporaryDirectory(prefix="luthier-gguf-") as folder:
        path = Path(folder) / "head.gguf"
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        head = path.read_bytes()
    return head + bytes(-len(head) % _ALIGNMENT)


def _json(blobs: Blobs, files: Mapping[str, str], name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(_text(blobs, files, name))
    return value


def _text(blobs: Blobs, files: Mapping[str, str], name: str) -> str:
    if name not in files:
        raise _refused(f"it has no {name}")
    with blobs.open(files[name]) as stream:
        return stream.read().decode("utf-8")


def _refused(why: str) -> UserError:
    return UserError(f"This model cannot be exported as GGUF: {why}. Use format=merged.", param="format")
