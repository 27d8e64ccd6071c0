"""Folders that are no base model: copies of the tiny model, each broken in one way, and what the error must name."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file, save_file

from tests.conftest import TINY

POINTER: Final = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 3608704\n"
)
Break = Callable[[Path], object]


def copy(folder: Path, broken: Break) -> Path:
    """Return the new `folder`: a copy of the tiny model, broken."""
    shutil.copytree(TINY, folder)
    broken(folder)
    return folder


def config(**changes: Any) -> Break:
    """Change values of config.json."""
    return lambda folder: _merge(folder / "config.json", changes)


def template(text: str) -> Break:
    """Put another chat template in place."""
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


def _merge(file: Path, changes: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _write(name: str, content: str | bytes) -> Break:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def _header(change: Callable[[dict[str, Any]], object], *, tail: bytes | None = None) -> Break:
    """Change the header of the weights; `tail`: what follows it in place of the tensors."""

    def broken(folder: Path) -> None:
        file = folder / "model.safetensors"
        data = file.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        change(header)
        content = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(content)) + content + (data[8 + length :] if tail is None else tail))

    return broken


def _first(**changes: Any) -> Callable[[dict[str, Any]], object]:
    """Change the entry of the tensor that lies first in the file."""

    def change(header: dict[str, Any]) -> None:
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        min(tensors, key=lambda entry: entry["data_offsets"][0]).update(changes)

    return change


def _cut(name: str, share: float) -> Break:
    def broken(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return broken


def _one_of_three(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00003.safetensors")


def _parts_without_index(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    for number, chosen in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: weights[name] for name in chosen}, folder / f"model-0000{number}-of-00002.safetensors")
    (folder / "model.safetensors").unlink()


def _prefixed(prefix: str) -> Break:
    def broken(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        save_file({f"{prefix}{name}": tensor for name, tensor in weights.items()}, folder / "model.safetensors")

    return broken


def _renamed(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")


def _indexed(place: str) -> Break:
    def broken(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        index = {"metadata": {}, "weight_map": {"model.norm.weight": "part.safetensors", "other.weight": place}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return broken


def _loop(name: str) -> Break:
    def broken(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(name)

    return broken


def _dangling(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("elsewhere.json")


def _pipe(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    os.mkfifo(folder / "chat_template.jinja")


def _as_folder(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()


def _more_tokens(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    token = {"id": 4096, "content": "<|new|>", "special": True}
    rest = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer["added_tokens"].append(token | rest)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def _without_ends(folder: Path) -> None:
    _merge(folder / "tokenizer_config.json", {"eos_token": None, "pad_token": None})
    _merge(folder / "config.json", {"eos_token_id": None, "pad_token_id": None})


def _no_merges(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = [["no", "such"]]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def _adapter(*files: str, base: bool = True) -> Break:
    """Leave files of PEFT in the folder, or nothing else."""

    def broken(folder: Path) -> None:
        for name in files:
            content = {"peft_type": "IA3", "base_model_name_or_path": "org/base", "target_modules": ["k_proj"]}
            if name.endswith(".json"):
                (folder / name).write_text(json.dumps(content))
            else:
                shutil.copyfile(folder / "model.safetensors", folder / name)
        if not base:
            (folder / "config.json").unlink()
            (folder / "model.safetensors").unlink()

    return broken


def _generation(**settings: Any) -> Break:
    return lambda folder: (folder / "generation_config.json").write_text(json.dumps(settings))


# By name: how the folder is broken, and what the error must name.
BROKEN: Final[Mapping[str, tuple[Break, str]]] = {
    "weights that are a pointer of Git LFS": (_write("model.safetensors", POINTER), r"model\.safetensors.*Git LFS"),
    "a tokenizer that is a pointer of Git LFS": (_write("tokenizer.json", POINTER), r"tokenizer\.json.*Git LFS"),
    "one of three files": (_one_of_three, "model-00002-of-00003"),
    "two files without an index": (_parts_without_index, r"model\.safetensors\.index\.json"),
    "weights in a file of another name": (_renamed, r"weights\.safetensors"),
    "tensors named by torch.compile": (_prefixed("_orig_mod."), r"_orig_mod\."),
    "tensors named by DistributedDataParallel": (_prefixed("module."), r"module\."),
    "an index that names a file that is not there": (_indexed("lost.safetensors"), r"lost\.safetensors"),
    "an index that leaves the folder": (_indexed("../part.safetensors"), r"other\.weight"),
    "an index that names a tensor that is not there": (_indexed("part.safetensors"), r"other\.weight"),
    "weights that are cut off": (_cut("model.safetensors", 0.5), "cut off"),
    "weights without bytes": (_write("model.safetensors", b""), "cut off"),
    "a header that is longer than the file": (
        _write("model.safetensors", struct.pack("<Q", 10**6) + b"{}"),
        "1,000,000",
    ),
    "a header of an absurd size": (_write("model.safetensors", struct.pack("<Q", 2**63) + b"{}"), "header"),
    "a header that is no JSON": (_write("model.safetensors", struct.pack("<Q", 4) + b"{{{{"), "JSON"),
    "a header that is a list": (_write("model.safetensors", struct.pack("<Q", 2) + b"[]"), "JSON object"),
    "a header that is nested without end": (
        _write("model.safetensors", struct.pack("<Q", 10**6) + b"[" * 10**6),
        "JSON",
    ),
    "a tensor beyond the end": (_header(_first(data_offsets=[0, 10**9])), "bytes"),
    "a tensor before the start": (_header(_first(data_offsets=[-4, 4])), "impossible"),
    "a tensor whose shape is a lie": (_header(_first(shape=[7, 7])), r"\[7, 7\]"),
    "a tensor whose type is a lie": (_header(_first(dtype="F64")), "F64"),
    "a tensor of an unknown type": (_header(_first(dtype="F1")), "unknown type F1"),
    "a tensor with a shape of words": (_header(_first(shape=["128"])), "impossible"),
    "no tensors": (_header(dict.clear, tail=b""), "without a single number"),
    "bytes behind the tensors": (_header(lambda header: None, tail=bytes(10**7)), "damaged"),
    "no layers": (config(num_hidden_layers=0), "num_hidden_layers"),
    "fewer than no layers": (config(num_hidden_layers=-1), "num_hidden_layers"),
    "a thousand million layers": (config(num_hidden_layers=10**9), "num_hidden_layers"),
    "more layers than weights": (config(num_hidden_layers=7), "num_hidden_layers = 7.* 6"),
    "heads that do not divide the width": (config(num_attention_heads=5, head_dim=None), "5"),
    "key heads that do not divide the heads": (config(num_key_value_heads=3), "key/value"),
    "a width that is a text": (config(hidden_size="128"), "hidden_size = '128'"),
    "a width that is not that of the weights": (config(hidden_size=256), "hidden_size = 256"),
    "a number that is none": (config(rms_norm_eps=float("nan")), "NaN"),
    "an infinite number": (config(rope_theta=float("inf")), "Infinity"),
    "no vocabulary": (config(vocab_size=0), "vocab_size"),
    "a vocabulary that is not that of the weights": (config(vocab_size=5000), "vocab_size = 5000"),
    "no context": (config(max_position_embeddings=None), "max_position_embeddings"),
    "layers that are a truth": (config(num_hidden_layers=True), "num_hidden_layers"),
    "an absurd size of the text part": (
        config(model_type="gemma3", architectures=["Gemma3ForConditionalGeneration"], text_config={"vocab_size": -1}),
        "vocab_size",
    ),
    "a text part that is a number": (config(text_config=3), "text_config"),
    "a config that is a list": (_write("config.json", "[]"), "JSON object"),
    "a config that is nested without end": (_write("config.json", "[" * 10**6), "config.json"),
    "a config that is no text": (_write("config.json", b"\xff\xfe\x00"), "config.json"),
    "architectures that are a number": (config(architectures=7), "architectures"),
    "no model type": (config(model_type=None), "model_type"),
    "a model type that nobody knows": (config(model_type="no-such"), "no-such"),
    "code that comes with the model": (
        config(model_type="own", auto_map={"AutoModelForCausalLM": "modeling_own.Own"}),
        "code",
    ),
    "a class that comes with the model": (config(architectures=["OwnLlamaForCausalLM"]), "OwnLlamaForCausalLM.*code"),
    "an encoder–decoder": (config(model_type="t5", architectures=["T5ForConditionalGeneration"]), "encoder–decoder"),
    "another encoder–decoder": (config(model_type="bart", architectures=["BartForConditionalGeneration"]), "Bart"),
    "a model of images": (config(model_type="vit", architectures=["ViTForImageClassification"]), "ViT"),
    "a model of sound": (config(model_type="wav2vec2", architectures=["Wav2Vec2ForCTC"]), "Wav2Vec2"),
    "a classifier": (config(architectures=["LlamaForSequenceClassification"]), "LlamaForSequenceClassification"),
    "a tokenizer that is larger than the embeddings": (_more_tokens, r"<\|new\|>"),
    "a tokenizer that is cut off": (_cut("tokenizer.json", 0.7), r"tokenizer\.json"),
    "a tokenizer that is no object": (_write("tokenizer.json", "[]"), r"tokenizer\.json"),
    "a tokenizer without a model": (_write("tokenizer.json", "{}"), r"tokenizer\.json"),
    "a tokenizer whose merges are of other tokens": (_no_merges, r"tokenizer\.json"),
    "a tokenizer that is a folder": (_as_folder, "regular file"),
    "neither an end nor a padding token": (_without_ends, "eos_token"),
    "a tokenizer's settings that are cut off": (_cut("tokenizer_config.json", 0.5), r"tokenizer_config\.json"),
    "a template that is no Jinja": (template("{% for m in messages %}"), "line 1"),
    "a template that is no text": (_write("chat_template.jinja", b"\xff\xfe\x00"), r"chat_template\.jinja"),
    "a template that is a pipe": (_pipe, "regular file"),
    "a template of many bytes": (template("x" * (2**20 + 1)), "1,048,577"),
    "a template of too much text": (template("{{ 'x' * 2000000 }}"), "2,000,000"),
    "an adapter beside the model": (
        _adapter("adapter_config.json", "adapter_model.safetensors"),
        r"adapter_config\.json, adapter_model\.safetensors",
    ),
    "the settings of an adapter beside the model": (_adapter("adapter_config.json"), r"\(adapter_config\.json\)"),
    "the weights of an adapter beside the model": (
        _adapter("adapter_model-00001-of-00001.safetensors"),
        r"adapter_model-00001-of-00001\.safetensors",
    ),
    "an adapter alone": (
        _adapter("adapter_config.json", "adapter_model.safetensors", base=False),
        "only a PEFT adapter.*merge",
    ),
    "weights in 4 bits": (config(quantization_config={"quant_method": "awq", "bits": 4}), "quant_method = 'awq'"),
    "weights in 8 bits": (config(quantization_config={"load_in_8bit": True}), "bitsandbytes"),
    "weights in a type that nobody knows": (
        config(quantization_config={"quant_method": "own"}),
        "quant_method = 'own'",
    ),
    "weights that were quantised somehow": (config(quantization_config={"bits": 4}), "quant_method = None"),
    "quantised weights of the text part": (
        config(
            model_type="gemma3",
            architectures=["Gemma3ForConditionalGeneration"],
            text_config={"quantization_config": {"quant_method": "hqq"}},
        ),
        r"text_config\.quantization_config\.quant_method = 'hqq'",
    ),
    "a padding token after the last": (config(pad_token_id=4096), r"config\.json says pad_token_id = 4,096"),
    "padding tokens in a list": (config(pad_token_id=[0]), "pad_token_id"),
    "an end token that is a word": (config(eos_token_id=["<eos>"]), "eos_token_id|refused by transformers"),
    "an end token of answers that is a word": (_generation(eos_token_id=[2, "<eos>"]), r"generation_config.*'<eos>'"),
    "a padding token of answers after the last": (_generation(pad_token_id=70_000), "pad_token_id = 70,000"),
    "a length of answers that is a text": (_generation(max_new_tokens="many"), "max_new_tokens = 'many'"),
    "settings of answers that transformers refuses": (_generation(max_new_tokens=-3), r"generation_config\.json"),
    "a context of almost nothing": (config(max_position_embeddings=7), "context of 7 tokens.* 8 "),
    "a config that is a link to itself": (_loop("config.json"), r"config\.json"),
    "weights that are a link to themselves": (_loop("model.safetensors"), r"model\.safetensors"),
    "a config that is a link to nothing": (_dangling, "does not exist"),
}
# Templates that would never end, or fill the memory.
EXPLODING: Final[Mapping[str, str]] = {
    "a loop without end": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a loop only where there are tools": (
        "{{ messages[0].content }}{% if tools %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
        "{% endfor %}{% endif %}"
    ),
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a number of a thousand million digits": "{{ (10 ** (10 ** 9)) % 7 }}",
    "a text of gigabytes": "{{ 'x' * (10 ** 11) }}",
    "a list of gigabytes": "{% set l = [0] * (10 ** 9) %}{{ l * 20 }}",
    "a text that doubles": "{% set n = namespace(t='x') %}{% for a in range(99) %}{% set n.t = n.t ~ n.t %}"
    "{% endfor %}",
    "brackets without end": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
}
