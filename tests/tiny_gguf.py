"""The tests' tiny chat model as a GGUF file, written as llama.cpp's converter writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.torch import load_file

_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
CONTROL, NORMAL = 3, 1


def write(folder: Path, file: Path, quantisation: gguf.GGMLQuantizationType, *, without: str = "nothing") -> None:
    """Write the Llama-type model of `folder` to `file`, its matrices quantised, without the tensor named `without`."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_name("tiny-chat")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, folder)
    for name, tensor in load_file(folder / "model.safetensors").items():
        theirs = _renamed(name)
        values = tensor.float().numpy()
        if theirs == without:
            continue
        if theirs.endswith(("attn_q.weight", "attn_k.weight")):
            values = _permuted(values, config["num_attention_heads"])
        if values.ndim == 2 and quantisation is not gguf.GGMLQuantizationType.F32:
            writer.add_tensor(theirs, gguf.quants.quantize(values, quantisation), raw_dtype=quantisation)
        else:
            writer.add_tensor(theirs, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    model, special = tokenizer["model"], {token["content"] for token in tokenizer["added_tokens"]}
    vocabulary = model["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token in special else NORMAL for token in tokens])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    end = json.loads((folder / "config.json").read_text())["eos_token_id"]
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)  # the trap that many files set
    writer.add_chat_template((folder / "chat_template.jinja").read_text())


def _renamed(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    _, _, layer, *part, kind = name.split(".")
    return f"blk.{layer}.{_LAYER_NAMES['.'.join(part)]}.{kind}"


def _permuted(values: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp turns neighbouring pairs, transformers the two halves of a head."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
