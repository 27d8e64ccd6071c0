"""How many numbers a design's model has, how many of them move, and on which layers adapters sit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from luthier.design import (
    AdaLora,
    Architecture,
    BitFit,
    Dora,
    Full,
    Ia3,
    LayerNorm,
    Lora,
    LoraPlus,
    Oft,
    Pissa,
    Placed,
    Prefix,
    Prompt,
    QLora,
    RsLora,
    TopLayers,
    Update,
    Vera,
)
from luthier.models.base_model import Anatomy, Linear, ModelFacts

ADALORA_START: Final = 1.5  # times the rank that is left in the end
# What IA³ rescales, by the last parts of PEFT's names for the families: outputs of these, and inputs of those.
_RESCALED_OUTPUTS: Final = ("k_proj", "v_proj", "key", "value", "c_attn", "query_key_value")
_RESCALED_INPUTS: Final = ("down_proj", "output.dense", "mlp.c_proj", "dense_4h_to_h", "fc2")
_KEYS_AND_VALUES: Final = ("k_proj", "v_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A base model with a design's edits made. Each linear layer comes with how many there are of it."""

    facts: ModelFacts
    anatomy: Anatomy
    layers: int
    stored_layers: int
    kv_heads: int
    linear: tuple[tuple[Linear, int], ...]
    parameters: int

    @property
    def hidden(self) -> int:
        return self.facts.hidden_size

    @property
    def attention_width(self) -> int:
        """Numbers in one token's queries."""
        return self.facts.hidden_size

    @property
    def kv_width(self) -> int:
        """Numbers in one token's keys."""
        return self.facts.hidden_size * self.kv_heads // self.facts.heads

    @property
    def inner(self) -> int:
        """Width of the feed-forward layers."""
        return max(each.outputs for each, _ in self.linear if each.layered and not each.attention)

    @property
    def gated(self) -> bool:
        """Whether the feed-forward layers have a gate beside what it lets through."""
        return sum(each.layered and not each.attention for each, _ in self.linear) > 2

    @property
    def head(self) -> int:
        """Numbers in the output head."""
        return self.facts.vocab_size * self.facts.hidden_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """What a weight update moves, what it adds, and the layers that it sits on."""

    numbers: int
    tensors: int
    added: int = 0  # to the model, moving ones included
    modules: tuple[tuple[Linear, int], ...] = ()


def shape(facts: ModelFacts, architecture: Architecture) -> Shape:
    """The model that a design trains."""
    anatomy = facts.anatomy or _supposed(facts)
    kept = min(architecture.layers or facts.layers, facts.layers)
    stored = min(kept, anatomy.layers)
    kv_heads = architecture.kv_heads or facts.kv_heads
    linear = tuple((_pooled(each, facts, kv_heads), stored if each.layered else 1) for each in anatomy.linear)
    unpooled = sum(each.numbers * (stored if each.layered else 1) for each in anatomy.linear)
    saved = unpooled - sum(each.numbers * count for each, count in linear)
    return Shape(
        facts=facts,
        anatomy=anatomy,
        layers=kept,
        stored_layers=stored,
        kv_heads=kv_heads,
        linear=linear,
        parameters=facts.parameters - (anatomy.layers - stored) * anatomy.layer - saved,
    )


def moving(model: Shape, update: Update) -> Moving:
    """What the update moves in this model, counted as it is made (AdaLoRA: with the rank that it starts from)."""
    match update:
        case Full():
            return Moving(numbers=model.parameters, tensors=model.anatomy.tensors * model.stored_layers + 2)
        case TopLayers(layers=layers):
            each = (model.parameters - _outside(model)) // model.stored_layers
            return Moving(
                numbers=layers * each + model.anatomy.last_norm,
                tensors=layers * model.anatomy.tensors + bool(model.anatomy.last_norm),
            )
        case LayerNorm():
            norms = model.anatomy.norms * model.stored_layers + model.anatomy.outer_norms
            return Moving(numbers=norms, tensors=2 * model.stored_layers + 1)
        case BitFit():
            biases = model.anatomy.biases * model.stored_layers + model.anatomy.outer_biases
            return Moving(numbers=biases, tensors=8 * model.stored_layers)
        case Prompt(tokens=tokens):
            return _added(tokens * model.hidden, 1, ())
        case Prefix(tokens=tokens):
            return _added(tokens * model.layers * 2 * model.kv_width, 1, ())
        case Lora() | RsLora() | Dora() | Pissa() | LoraPlus() | QLora() | AdaLora() | Vera() | Oft() | Ia3():
            return _adapters(model, update)


_Adapters = Lora | RsLora | Dora | Pissa | LoraPlus | QLora | AdaLora | Vera | Oft | Ia3


def _adapters(model: Shape, update: _Adapters) -> Moving:
    modules = _sites(model, update)
    count = sum(times for _, times in modules)

    def total(inputs: float, outputs: float, each: float = 0) -> int:
        return round(sum((inputs * m.inputs + outputs * m.outputs + each) * times for m, times in modules))

    match update:
        case Lora(rank=rank) | RsLora(rank=rank) | Pissa(rank=rank) | LoraPlus(rank=rank) | QLora(rank=rank):
            return _added(total(rank, rank), 2 * count, modules)
        case Dora(rank=rank):
            return _added(total(rank, rank + 1), 3 * count, modules)
        case AdaLora(rank=rank):
            start = math.ceil(ADALORA_START * rank)
            return _added(total(start, start, start), 3 * count, modules, frozen=count)
        case Vera(rank=rank):
            widest = max(m.inputs for m, _ in modules) + max(m.outputs for m, _ in modules)
            return _added(total(0, 1, rank), 2 * count, modules, frozen=rank * widest)
        case Oft(block=block):
            return _added(total((block - 1) / 2, 0), count, modules)
        case Ia3():
            inputs = sum(m.inputs * times for m, times in modules if _is(m, _RESCALED_INPUTS))
            outputs = sum(m.outputs * times for m, times in modules if not _is(m, _RESCALED_INPUTS))
            return _added(inputs + outputs, count, modules)


def _added(numbers: int, tensors: int, modules: tuple[tuple[Linear, int], ...], frozen: int = 0) -> Moving:
    return Moving(numbers=numbers, tensors=tensors, added=numbers + frozen, modules=modules)


def _sites(model: Shape, update: _Adapters) -> tuple[tuple[Linear, int], ...]:
    """PEFT takes a layer for a target whose path ends as the target's does."""
    if isinstance(update, Ia3):
        named = (*_RESCALED_OUTPUTS, *_RESCALED_INPUTS)
        return tuple(each for each in model.linear if _is(each[0], named))
    match update.placement if isinstance(update, Placed) else "all":
        case "attention":
            names = [each.name for each, _ in model.linear if each.attention]
        case "mlp":
            names = [each.name for each, _ in model.linear if not each.attention]
        case "embeddings":
            tables = Linear(name="embeddings", inputs=model.facts.vocab_size, outputs=model.hidden, layered=False)
            return (*model.linear, (tables, 1))
        case _:
            return model.linear
    return tuple(each for each in model.linear if _is(each[0], names))


def _is(linear: Linear, names: tuple[str, ...] | list[str]) -> bool:
    return any(linear.name == name or linear.name.endswith(f".{name}") for name in names)


def _outside(model: Shape) -> int:
    """Parameters outside of the transformer layers."""
    return model.facts.parameters - model.anatomy.layers * model.anatomy.layer


def _pooled(linear: Linear, facts: ModelFacts, kv_heads: int) -> Linear:
    if kv_heads == facts.kv_heads or not _is(linear, _KEYS_AND_VALUES):
        return linear
    return linear.model_copy(update={"outputs": linear.outputs * kv_heads // facts.kv_heads})


def _supposed(facts: ModelFacts) -> Anatomy:
    """Of a model registered before its anatomy was looked at: that of a Llama with as many parameters."""
    width, keys = facts.hidden_size, facts.hidden_size * facts.kv_heads // facts.heads
    tables = facts.vocab_size * width * (1 if facts.tied else 2)
    attention = 2 * width * (width + keys)
    layer = max((facts.parameters - tables - width) // facts.layers, attention + 5 * width)
    inner = (layer - attention - 2 * width) // (3 * width)
    sizes = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (width, keys),
        "self_attn.v_proj": (width, keys),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (width, inner),
        "mlp.up_proj": (width, inner),
        "mlp.down_proj": (inner, width),
    }
    return Anatomy(
        layers=facts.layers,
        layer=layer,
        tensors=9,
        norms=2 * width,
        biases=0,
        outer_norms=width,
        last_norm=width,
        outer_biases=0,
        linear=tuple(Linear(name=name, inputs=i, outputs=o) for name, (i, o) in sizes.items()),
    )
