"""Base models: the registry's entries, and the facts about a model that are read from its files without loading it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from luthier.design import Frozen
from luthier.errors import UserError
from luthier.models import chat_template

ORIGIN: Final = "origin.json"  # in a folder that was converted or downloaded: the facts `origin` and `quantised`
# Encoders saved without a head for masked tokens, as sentence embedders are.
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
    """A linear layer: what adapters sit on."""

    name: str = Field(description="its path; of those in a transformer layer from there down, e.g. self_attn.q_proj")
    inputs: int = Field(ge=1)
    outputs: int = Field(ge=1)
    layered: bool = Field(default=True, description="whether each transformer layer has one")

    @property
    def attention(self) -> bool:
        return self.layered and "att" in self.name

    @property
    def numbers(self) -> int:
        """How many it holds, its bias left out."""
        return self.inputs * self.outputs


class Anatomy(Frozen):
    """What a model's weights are made of, by the headers of its files. All transformer layers are taken to be alike."""

    layers: int = Field(ge=1, description="transformer layers with weights of their own; fewer where they are shared")
    layer: int = Field(ge=1, description="parameters of one of them")
    tensors: int = Field(ge=1, description="tensors of one of them")
    norms: int = Field(ge=0, description="parameters of the normalisations in one of them")
    biases: int = Field(ge=0, description="parameters of the biases in one of them")
    outer_norms: int = Field(ge=0, description="parameters of the normalisations outside of them")
    last_norm: int = Field(ge=0, description="those of the one that follows the last layer")
    outer_biases: int = Field(ge=0)
    linear: tuple[Linear, ...] = Field(description="all but the output head")


class ModelFacts(Frozen):
    """What the search and the cost model need to know of a base model."""

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
        description="how many tokens each one sees; None for a family whose window cannot be set in all layers",
    )
    biases: bool = Field(default=False, description="whether any layer has a bias")
    tools: bool = Field(default=False, description="whether conversations can show tools, tool calls and tool replies")
    rope: Literal["plain", "scaled"] | None = Field(
        default=None, description="rotary positions, and whether they are stretched already; None: cannot be stretched"
    )
    origin: str | None = Field(
        default=None, description="what Luthier made the folder from: a GGUF file, or a hub id with its revision"
    )
    quantised: str | None = Field(
        default=None, description="type of the weights before they were de-quantised, e.g. Q4_1: precision is lost"
    )
    head: Literal["own", "tied"] = Field(
        default="own",
        exclude_if=lambda head: head == "own",
        description="`own`: the model brings its output head; `tied`: an encoder that has none starts with one made of "
        "its token embeddings, behind an identity transform",
    )
    tied: bool = Field(default=True, description="whether the output head shares its weights with the embeddings")
    anatomy: Anatomy | None = Field(
        default=None,
        exclude_if=lambda anatomy: anatomy is None,  # models registered before the field
        description="what the weights are made of",
    )


class BaseModelEntry(Frozen):
    """A line of the base-model registry. `source` is a local folder that workers can read, or a hub id."""

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    source: str = Field(min_length=1)
    facts: ModelFacts


def read_facts(folder: Path) -> ModelFacts:
    """Read the facts of a model saved by `save_pretrained`. Raises UserError naming the file that is missing or odd."""
    config = _json(folder / "config.json")
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"{folder} has no tokenizer.json (a fast tokenizer is needed)", param="source")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{folder} has no *.safetensors weights (pickled weights are never loaded)", param="source")
    architecture = (config.get("architectures") or ["unknown"])[0]
    encoder = architecture.endswith("ForMaskedLM") or architecture in HEADLESS_ENCODERS
    if not (encoder or architecture.endswith("ForCausalLM")):
        raise UserError(
            f"{folder}: {architecture} is neither a causal (…ForCausalLM) nor a masked language model (…ForMaskedLM, "
            f"{', '.join(HEADLESS_ENCODERS)})",
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
            **_origin(folder),
            tied=bool(config.get("tie_word_embeddings")) or _tables(headers, config) < 2,
            anatomy=_anatomy({name: tensor["shape"] for h in headers for name, tensor in h.items()}, config),
        )
    except KeyError as missing:
        raise UserError(f"{folder / 'config.json'} lacks the field {missing}", param="source") from missing


def _origin(folder: Path) -> dict[str, str | None]:
    """Where a folder of ours comes from; any other says nothing about it."""
    return _json(folder / ORIGIN) if (folder / ORIGIN).is_file() else {}


def _positions_before_the_first(config: dict[str, Any]) -> int:
    """RoBERTa's first token stands after the padding token's number."""
    return int(config["pad_token_id"]) + 1 if config.get("model_type") in OFFSET_POSITIONS else 0


def _tables(headers: list[dict[str, dict[str, Any]]], config: dict[str, Any]) -> int:
    """How many tensors have a row for each token: the embeddings, and the output head where it has its own."""
    shape = [config["vocab_size"], config["hidden_size"]]
    return sum(tensor["shape"] == shape for header in headers for tensor in header.values())


def _anatomy(shapes: dict[str, list[int]], config: dict[str, Any]) -> Anatomy | None:
    """None where the tensors' names tell nothing of layers."""
    inside: dict[int, dict[str, list[int]]] = {}
    outside: dict[str, list[int]] = {}
    for name, shape in shapes.items():
        if found := _LAYER.search(name):
            inside.setdefault(int(found["index"]), {})[name[found.end() :]] = shape
        elif "pooler" not in name:  # of headless encoders, which masked language models leave out
            outside[name] = shape
    if not inside:
        return None
    first = inside[min(inside)]
    turned = config.get("model_type") == "gpt2"  # whose Conv1D keeps the inputs first
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
            return context  # computes what Mistral computes, which has a window
        case "mistral":
            return min(config.get("sliding_window", 4096) or context, context)  # 4096 is the family's default
        case "qwen2" | "qwen3" if not config.get("use_sliding_window"):
            return context
        case _:
            return None


def _rope(config: dict[str, Any]) -> Literal["plain", "scaled"] | None:
    if config.get("model_type") not in ("llama", "mistral", "qwen2", "qwen3"):
        return None  # learned positions, or rotary ones that differ by layer
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return "plain" if settings.get("rope_type", settings.get("type", "default")) == "default" else "scaled"


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file.parent} has no {file.name}: not a saved model", param="source") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}", param="source") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} does not hold a JSON object", param="source")
    return value


def _header(file: Path) -> dict[str, dict[str, Any]]:
    """The tensors that a safetensors header lists: 8 bytes of length, then JSON."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def _chat_templates(folder: Path) -> dict[str, str]:
    """By name, as transformers finds them: files of their own go before the field in tokenizer_config.json."""
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
