"""Base models: registry entries, and facts that are read from a model's files without loading it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from luthier.errors import UserError
from luthier.models import chat_template, model_files, safetensors_header
from luthier.models.safetensors_header import Tensor
from luthier.values import Frozen

ORIGIN: Final = "origin.json"  # in converted and downloaded folders: the facts `origin` and `quantised`
DECODERS: Final = ("ForCausalLM", "LMHeadModel")  # how the names of their classes end
# Encoders saved without a masked-LM head, e.g. sentence embedders.
HEADLESS_ENCODERS: Final = ("BertModel", "RobertaModel", "XLMRobertaModel", "DistilBertModel", "ModernBertModel")
# Families whose first token has position `pad_token_id + 1`.
OFFSET_POSITIONS: Final = ("roberta", "xlm-roberta", "camembert")
# Where families that have no `max_position_embeddings` keep the longest sequence.
CONTEXTS: Final = ("max_position_embeddings", "max_seq_len", "seq_length", "max_sequence_length")
LEAST_CONTEXT: Final = 8  # tokens that a job reads at least (JudgeSpec.window and .max_tokens)
# The context of a model without any limit (state-space models), unless its tokenizer names one.
UNLIMITED_CONTEXT: Final = 8192
_NO_LIMIT: Final = -1  # what XLNet's config class says in place of a longest sequence
# Families whose linear layers are transformers' Conv1D, which stores weights as (inputs, outputs).
_CONV1D: Final = ("gpt2", "openai-gpt")
_LAYER: Final = re.compile(r"(?:^|\.)\w*(?:layers?|blocks?|h)\.(?P<index>\d+)\.")
_NORM: Final = re.compile(r"(?:norm\w*|ln_\w+)\.(?:weight|bias)$", re.IGNORECASE)
_LAST_NORM: Final = re.compile(
    r"(?:^|\.)(?:norm|norm_f|ln_f|layer_?norm|out_norm|final_norm|final_layer_?norm)\.(?:weight|bias)$"
)
_BIAS: Final = re.compile(r"\.bias$")
# Layers of attention that some families put into modules of other names (`mixer`, `temporal_block`).
_ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
_TEXT_PART: Final = re.compile(r"language_model\.|^lm_head\.")  # of a multimodal model
_TABLE: Final = re.compile(r"(?:embeddings?|embed_\w+|\w+_embed|wte|wpe)\.weight$")
_DISTILBERT_NAMES: Final = {"dim": "hidden_size", "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers"}


class Linear(Frozen):
    """A linear layer, which adapters can be attached to."""

    name: str = Field(description="module path; inside a transformer layer relative to it, e.g. self_attn.q_proj")
    inputs: int = Field(ge=1)
    outputs: int = Field(ge=1)
    layered: bool = Field(default=True, description="whether each transformer layer has one")

    @property
    def attention(self) -> bool:
        return self.layered and ("att" in self.name or self.name.rsplit(".", 1)[-1] in _ATTENTION)

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
    unsupported: dict[str, str] | None = Field(
        default=None,
        exclude_if=lambda reasons: reasons is None,  # models registered before the field
        description="weight updates and edits, by kind, that failed on a tiny model of this architecture, and why; "
        "null if none did, or none was tried",
    )
    chat_fault: str | None = Field(
        default=None,
        exclude_if=lambda reason: reason is None,
        description="why the chat template of the folder cannot show a plain chat; `chat_template` is then false",
    )
    untried: str | None = Field(
        default=None,
        exclude_if=lambda reason: reason is None,
        description="why the updates and edits could not be tried, so that all are offered",
    )

    def __hash__(self) -> int:  # workers cache models and prepared data by entry; `unsupported` has no hash
        return hash((self.architecture, self.parameters, self.context, self.tokenizer))


class BaseModelEntry(Frozen):
    """An entry of the base-model registry. `source` is a local folder that workers can read, or a hub id."""

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    source: str = Field(min_length=1)
    facts: ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardConfig:
    """The configuration of a model. `values` have transformers' standard names (`hidden_size`, not `n_embd`).

    `text_part`: the model is the part for text of a folder that has parts for images or sound too.
    """

    architecture: str
    family: Literal["decoder", "encoder"]
    values: Mapping[str, Any]
    text_part: bool = False


def read_facts(folder: Path, config: StandardConfig | None = None) -> ModelFacts:
    """Return the facts of a model saved by `save_pretrained`. Raises UserError naming the missing or invalid file.

    `config` None: the values as they stand in config.json, which have the standard names in most families.
    """
    if config is None:
        config = _as_written(folder)
    values, architecture = config.values, config.architecture
    if not (folder / "tokenizer.json").exists():
        raise UserError(f"{folder} has no tokenizer.json (a fast tokenizer is required).", param="source")
    tensors = safetensors_header.tensors(folder)
    if config.text_part:
        tensors = {name: tensor for name, tensor in tensors.items() if _TEXT_PART.search(name)}
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    context = _context(values, folder)
    heads = values.get("num_attention_heads") or 1  # models without attention have none
    templates = chat_templates(folder)
    template = chat_template.in_use(templates)
    chat_fault = chat_template.plain_fault(templates) if templates else None
    try:
        return ModelFacts(
            architecture=architecture,
            family=config.family,
            parameters=sum(math.prod(shape) for shape in shapes.values()),
            hidden_size=values["hidden_size"],
            layers=values["num_hidden_layers"],
            heads=heads,
            kv_heads=_kv_heads(values, heads),
            vocab_size=values["vocab_size"],
            context=context,
            chat_template=template is not None and chat_fault is None,
            chat_fault=chat_fault,
            attention_window=_attention_window(values, context),
            biases=any(name.endswith(".bias") for name in shapes),
            tools=template is not None and chat_template.with_tools(template) is not None,
            rope=_rope(values),
            head="tied" if architecture in HEADLESS_ENCODERS else "own",
            tokenizer=_vocabulary(folder / "tokenizer.json"),
            **_origin(folder),
            tied=bool(values.get("tie_word_embeddings")) or _tables(tensors, values) < 2,
            anatomy=_anatomy(shapes, values, architecture),
        )
    except KeyError as missing:
        raise UserError(f"{folder / 'config.json'} lacks the field {missing}.", param="source") from missing
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"]))
        raise UserError(f"{folder}: {field}: {fault['msg']}, found {fault['input']!r:.80}.", param="source") from error


def _as_written(folder: Path) -> StandardConfig:
    values = model_files.json_object(folder / "config.json")
    architecture = (values.get("architectures") or ["unknown"])[0]
    encoder = architecture.endswith("ForMaskedLM") or architecture in HEADLESS_ENCODERS
    if not (encoder or architecture.endswith(DECODERS)):
        raise unsupported(folder, architecture)
    if encoder:
        values = {_DISTILBERT_NAMES.get(name, name): value for name, value in values.items()}
    return StandardConfig(architecture=architecture, family="encoder" if encoder else "decoder", values=values)


def unsupported(folder: Path, what: str) -> UserError:
    """Return the error for a model of another kind than those that can be trained."""
    return UserError(
        f"{folder}: {what} is not supported. Supported are causal (…ForCausalLM, …LMHeadModel) and masked language "
        f"models (…ForMaskedLM, {', '.join(HEADLESS_ENCODERS)}).",
        param="source",
    )


def _context(config: Mapping[str, Any], folder: Path) -> int:
    """Return the longest sequence in tokens."""
    for name in CONTEXTS:
        if config.get(name) not in (None, _NO_LIMIT):
            return int(config[name]) - _positions_before_the_first(config)
    settings = folder / "tokenizer_config.json"
    found = model_files.json_object(settings).get("model_max_length") if settings.is_file() else None
    return found if isinstance(found, int) and 0 < found <= 2**24 else UNLIMITED_CONTEXT


def _kv_heads(config: Mapping[str, Any], heads: int) -> int:
    """Return the number of key and value heads. Falcon and GPT-BigCode have one if `multi_query` is set."""
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1
    found = config.get("num_key_value_heads") or config.get("num_kv_heads")
    return found if isinstance(found, int) else heads


def _vocabulary(file: Path) -> str:
    """Return 16 hex digits that identify which id each token has. Raises UserError for no tokenizer.json."""
    tokenizer = model_files.json_object(file, most_bytes=model_files.LARGEST_TOKENIZER)
    try:
        return _digest(tokenizer)
    except (KeyError, TypeError, AttributeError) as error:
        raise model_files.refused(file, "is not the tokenizer.json of a fast tokenizer") from error


def _digest(tokenizer: Mapping[str, Any]) -> str:
    added = sorted((token["id"], token["content"]) for token in tokenizer.get("added_tokens") or [])
    text = json.dumps([tokenizer.get("model", {}).get("vocab"), added], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _origin(folder: Path) -> dict[str, str | None]:
    """Return the origin of a folder that Luthier made; empty for any other."""
    if not (folder / ORIGIN).is_file():
        return {}
    found = model_files.json_object(folder / ORIGIN)
    return {name: found[name] for name in ("origin", "quantised") if name in found}


def _positions_before_the_first(config: Mapping[str, Any]) -> int:
    """RoBERTa's positions start after the id of the padding token."""
    return int(config["pad_token_id"]) + 1 if config.get("model_type") in OFFSET_POSITIONS else 0


def _tables(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> int:
    """Return how many tensors have a row per token: the embeddings, and the output head if it is not tied."""
    shape = (config["vocab_size"], config["hidden_size"])
    return sum(tensor.shape == shape for tensor in tensors.values())


def _anatomy(shapes: dict[str, list[int]], config: Mapping[str, Any], architecture: str) -> Anatomy | None:
    """Return the parameters by part; None if the tensors' names do not show the layers.

    Of a model with a part for images or sound, only the part for text counts.
    """
    shapes = {name: shape for name, shape in shapes.items() if "language_model." in name} or shapes
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
    turned = config.get("model_type") in _CONV1D
    linear = [
        *_linear(first, turned=turned, layered=True),
        *(each for each in _linear(outside, turned=turned, layered=False) if each.outputs != config["vocab_size"]),
    ]
    if architecture in HEADLESS_ENCODERS:
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


def _attention_window(config: Mapping[str, Any], context: int) -> int | None:
    match config.get("model_type"):
        case "llama" if not (config.get("attention_bias") or config.get("mlp_bias")):
            return context  # equal to Mistral, which supports a window
        case "mistral":
            return min(config.get("sliding_window", 4096) or context, context)  # 4096 is the family's default
        case "qwen2" | "qwen3" if not config.get("use_sliding_window"):
            return context
        case _:
            return None


def _rope(config: Mapping[str, Any]) -> Literal["plain", "scaled"] | None:
    if config.get("model_type") not in ("llama", "mistral", "qwen2", "qwen3"):
        return None  # learned positions, or rotary positions that differ by layer
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return "plain" if settings.get("rope_type", settings.get("type", "default")) == "default" else "scaled"


def chat_templates(folder: Path) -> dict[str, str]:
    """Return the chat templates by name, as transformers finds them: separate files before tokenizer_config.json.

    Raises UserError for a file that cannot be read or is too long.
    """
    files = {"default": folder / "chat_template.jinja"}
    files |= {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    most = model_files.LARGEST_TEMPLATE
    found = {name: model_files.text(file, most_bytes=most) for name, file in files.items() if _present(file)}
    config = folder / "tokenizer_config.json"
    if found or not _present(config):
        return found
    match model_files.json_object(config).get("chat_template"):
        case str(template) if template:
            found = {"default": template}
        case list(named):
            found = {each["name"]: each["template"] for each in named if _is_named_template(each)}
            if len(found) < len(named):
                raise model_files.refused(config, "has a chat_template that is not a list of names and templates")
        case None | "":
            found = {}
        case _:
            raise model_files.refused(config, "has a chat_template that is no text")
    if any(len(template) > most for template in found.values()):
        raise model_files.refused(config, f"has a chat template of more than {most:,} characters")
    return found


def _present(file: Path) -> bool:
    """Return whether there is anything of this name: broken links and folders too, which are refused when read."""
    return file.is_symlink() or file.exists()


def _is_named_template(entry: Any) -> bool:
    match entry:
        case {"name": str(), "template": str()}:
            return True
        case _:
            return False
