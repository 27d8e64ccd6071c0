"""Base models: registry entries, and facts that are read from a model's files without loading it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from luthier.errors import UserError
from luthier.models import chat_template
from luthier.values import Frozen

ORIGIN: Final = "origin.json"  # in converted and downloaded folders: the facts `origin` and `quantised`
# Encoders saved without a masked-LM head, e.g. sentence embedders.
HEADLESS_ENCODERS: Final = ("BertModel", "RobertaModel", "XLMRobertaModel", "DistilBertModel", "ModernBertModel")
# Families whose first token has position `pad_token_id + 1`.
OFFSET_POSITIONS: Final = ("roberta", "xlm-roberta", "camembert")
_LAYER: Final = re.compile(r"(?:^|\.)\w*(?:layers?|blocks?|h)\.(?P<index>\d+)\.")
_NORM: Final = re.compile(r"(?:norm\w*|ln_\w+)\.(?:weight|bias)$", re.IGNORECASE)
_LAST_NORM: Final = re.compile(r"(?:^|\.)(?:norm|final_norm)\.(?:weight|bias)$")
_BIAS: Final = re.compile(r"\.bias$")
_TABLE: Final = re.compile(r"(?:embeddings?|embed_\w+|wte|wpe)\.weight$")
_DISTILBERT_NAMES: Final = {"dim": "hidden_size", "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers"}


class Linear(Frozen):
    """A linear layer, which adapters can be attached to."""

    name: str = Field(description="module path; inside a transformer layer relative to it, e.g. self_attn.q_proj")
    inputs: int = Field(ge=1)
    outputs: int = Field(ge=1)
    layered: bool = Field(default=True, description="whether each transformer layer has one")

    @property
    def attention(self) -> bool:
        return self.layered and "att" in self.name

    @property
    def numbers(self) -> int:
        """Number of parameters, without the bias."""
        return self.inputs * self.outputs


class Anatomy(Frozen):
    """Parameters of a model by part, from the headers of its files; all transformer layers are assumed to be equal."""

    layers: int = Field(
        ge=1, description="transformer layers with their own weights (layers that share weights count once)"
    )
    layer: int = Field(ge=1, description="parameters of one layer")
    tensors: int = Field(ge=1, description="tensors of one layer")
    norms: int = Field(ge=0, description="normalisation parameters of one layer")
    biases: int = Field(ge=0, description="bias parameters of one layer")
    outer_norms: int = Field(ge=0, description="normalisation parameters outside the layers")
    last_norm: int = Field(ge=0, description="parameters of the final norm")
    outer_biases: int = Field(ge=0, description="bias parameters outside the layers")
    linear: tuple[Linear, ...] = Field(description="linear layers, except the output head")


class ModelFacts(Frozen):
    """Facts about a base model for the search and the cost model."""

    architecture: str = Field(description="transformers' class name, e.g. LlamaForCausalLM")
    family: Literal["decoder", "encoder"]
    parameters: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    context: int = Field(ge=1, description="longest sequence in tokens")
    chat_template: bool
    attention_window: int | None = Field(
        default=None,
        description="tokens that each token attends to; None if the window cannot be set in all layers",
    )
    biases: bool = Field(default=False, description="whether any layer has a bias")
    tools: bool = Field(
        default=False, description="whether the chat template can show tools, tool calls and tool replies"
    )
    rope: Literal["plain", "scaled"] | None = Field(
        default=None, description="rotary positions: plain, or scaled already; None: RoPE scaling is not possible"
    )
    origin: str | None = Field(
        default=None, description="source of a folder that Luthier made: a GGUF file, or a hub id with its revision"
    )
    quantised: str | None = Field(
        default=None, description="type of the quantised weights before they were de-quantised, e.g. Q4_1"
    )
    head: Literal["own", "tied"] = Field(
        default="own",
        exclude_if=lambda head: head == "own",
        description="`own`: the model has an output head; `tied`: an encoder without one gets a head made of its token "
        "embeddings and an identity transform",
    )
    tied: bool = Field(default=True, description="whether the output head shares its weights with the embeddings")
    tokenizer: str | None = Field(
        default=None,
        exclude_if=lambda digest: digest is None,  # models registered before the field
        description="digest of the vocabulary; models with the same one can distil each other",
    )
    anatomy: Anatomy | None = Field(
        default=None,
        exclude_if=lambda anatomy: anatomy is None,  # models registered before the field
        description="parameters by part",
    )


class BaseModelEntry(Frozen):
    """An entry of the base-model registry. `source` is a local folder that workers can read, or a hub id."""

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    source: str = Field(min_length=1)
    facts: ModelFacts


def read_facts(folder: Path) -> ModelFacts:
    """Return the facts of a model saved by `save_pretrained`. Raises UserError naming the missing or invalid file."""
    config = _json(folder / "config.json")
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"{folder} has no tokenizer.json (a fast tokenizer is required).", param="source")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{folder} has no *.safetensors weights (pickled weights are never loaded).", param="source")
    architecture = (config.get("architectures") or ["unknown"])[0]
    encoder = architecture.endswith("ForMaskedLM") or architecture in HEADLESS_ENCODERS
    if not (encoder or architecture.endswith("ForCausalLM")):
        raise UserError(
            f"{folder}: {architecture} is not supported. Supported are causal (…ForCausalLM) and masked language "
            f"models (…ForMaskedLM, {', '.join(HEADLESS_ENCODERS)}).",
            param="source",
        )
    if encoder:
        config = {_DISTILBERT_NAMES.get(name, name): value for name, value in config.items()}
    try:
        heads = int(config["num_attention_heads"])
        headers = [_header(file) for file in weights]
        template = chat_template.in_use(_chat_templates(folder))
        return ModelFacts(
            architecture=architecture,
            family="encoder" if encoder else "decoder",
            parameters=sum(math.prod(tensor["shape"]) for header in headers for tensor in header.values()),
            hidden_size=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            vocab_size=config["vocab_size"],
            context=config["max_position_embeddings"] - _positions_before_the_first(config),
            chat_template=template is not None,
            attention_window=_attention_window(config),
            biases=any(name.endswith(".bias") for header in headers for name in header),
            tools=template is not None and chat_template.with_tools(template) is not None,
            rope=_rope(config),
            head="tied" if architecture in HEADLESS_ENCODERS else "own",
            tokenizer=_vocabulary(_json(folder / "tokenizer.json")),
            **_origin(folder),
            tied=bool(config.get("tie_word_embeddings")) or _tables(headers, config) < 2,
            anatomy=_anatomy({name: tensor["shape"] for h in headers for name, tensor in h.items()}, config),
        )
    except KeyError as missing:
        raise UserError(f"{folder / 'config.json'} lacks the field {missing}.", param="source") from missing


def _vocabulary(tokenizer: dict[str, Any]) -> str:
    """Return 16 hex digits that identify which id each token has."""
    added = sorted((token["id"], token["content"]) for token in tokenizer.get("added_tokens") or [])
    text = json.dumps([tokenizer.get("model", {}).get("vocab"), added], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _origin(folder: Path) -> dict[str, str | None]:
    """Return the origin of a folder that Luthier made; empty for any other."""
    return _json(folder / ORIGIN) if (folder / ORIGIN).is_file() else {}


def _positions_before_the_first(config: dict[str, Any]) -> int:
    """RoBERTa's positions start after the id of the padding token."""
    return int(config["pad_token_id"]) + 1 if config.get("model_type") in OFFSET_POSITIONS else 0


def _tables(headers: list[dict[str, dict[str, Any]]], config: dict[str, Any]) -> int:
    """Return how many tensors have a row per token: the embeddings, and the output head if it is not tied."""
    shape = [config["vocab_size"], config["hidden_size"]]
    return sum(tensor["shape"] == shape for header in headers for tensor in header.values())


def _anatomy(shapes: dict[str, list[int]], config: dict[str, Any]) -> Anatomy | None:
    """Return the parameters by part; None if the tensors' names do not show the layers."""
    inside: dict[int, dict[str, list[int]]] = {}
    outside: dict[str, list[int]] = {}
    for name, shape in shapes.items():
        if found := _LAYER.search(name):
            inside.setdefault(int(found["index"]), {})[name[found.end() :]] = shape
        elif "pooler" not in name:  # the pooler of headless encoders, which masked language models do not have
            outside[name] = shape
    if not inside:
        return None
    first = inside[min(inside)]
    turned = config.get("model_type") == "gpt2"  # its Conv1D stores weights as (inputs, outputs)
    linear = [
        *_linear(first, turned=turned, layered=True),
        *(each for each in _linear(outside, turned=turned, layered=False) if each.outputs != config["vocab_size"]),
    ]
    if config["architectures"][0] in HEADLESS_ENCODERS:
        width = config["hidden_size"]
        linear.append(Linear(name="head.dense", inputs=width, outputs=width, layered=False))
    return Anatomy(
        layers=len(inside),
        layer=sum(math.prod(shape) for layer in inside.values() for shape in layer.values()) // len(inside),
        tensors=len(first),
        norms=_numbers(first, _NORM),
        biases=_numbers(first, _BIAS),
        outer_norms=_numbers(outside, _NORM),
        last_norm=_numbers(outside, _LAST_NORM),
        outer_biases=_numbers(outside, _BIAS),
        linear=tuple(linear),
    )


def _linear(shapes: dict[str, list[int]], *, turned: bool, layered: bool) -> list[Linear]:
    found = []
    for name, shape in shapes.items():
        if len(shape) == 2 and name.endswith(".weight") and not _TABLE.search(name):
            outputs, inputs = reversed(shape) if turned else shape
            found.append(Linear(name=name.removesuffix(".weight"), inputs=inputs, outputs=outputs, layered=layered))
    return found


def _numbers(shapes: dict[str, list[int]], named: re.Pattern[str]) -> int:
    return sum(math.prod(shape) for name, shape in shapes.items() if named.search(name))


def _attention_window(config: dict[str, Any]) -> int | None:
    context: int = config["max_position_embeddings"]
    match config.get("model_type"):
        case "llama" if not (config.get("attention_bias") or config.get("mlp_bias")):
            return context  # equal to Mistral, which supports a window
        case "mistral":
            return min(config.get("sliding_window", 4096) or context, context)  # 4096 is the family's default
        case "qwen2" | "qwen3" if not config.get("use_sliding_window"):
            return context
        case _:
            return None


def _rope(config: dict[str, Any]) -> Literal["plain", "scaled"] | None:
    if config.get("model_type") not in ("llama", "mistral", "qwen2", "qwen3"):
        return None  # learned positions, or rotary positions that differ by layer
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return "plain" if settings.get("rope_type", settings.get("type", "default")) == "default" else "scaled"


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file.parent} has no {file.name}, so it is not a saved model.", param="source") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}", param="source") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} does not contain a JSON object.", param="source")
    return value


def _header(file: Path) -> dict[str, dict[str, Any]]:
    """Return the tensors in a safetensors header: 8 bytes of length, then JSON."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def _chat_templates(folder: Path) -> dict[str, str]:
    """Return the chat templates by name, as transformers finds them: separate files before tokenizer_config.json."""
    files = {"default": folder / "chat_template.jinja"}
    files |= {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    found = {name: file.read_text("utf-8") for name, file in files.items() if file.is_file()}
    config = folder / "tokenizer_config.json"
    if found or not config.is_file():
        return found
    match _json(config).get("chat_template"):
        case str(template) if template:
            return {"default": template}
        case list(named):
            return {each["name"]: each["template"] for each in named}
        case _:
            return {}
