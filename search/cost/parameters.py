"""The number of parameters of a design's model, and how many of them its weight updates train."""

from __future__ import annotations

from typing import Final

from luthier.design import Architecture
from luthier.models.base_model import Anatomy, Linear, ModelFacts
from luthier.models.rescaled import ends_with
from luthier.updates import Update
from search.methods import UPDATE_OF
from search.methods.amounts import Moving, Shape

_KEYS_AND_VALUES: Final = ("k_proj", "v_proj")


def shape(facts: ModelFacts, architecture: Architecture) -> Shape:
    """Return the dimensions of the model that a design trains: the base model after its edits."""
    anatomy = facts.anatomy or _llama_anatomy(facts)
    kept = min(architecture.layers or facts.layers, facts.layers)
    stored = min(kept, anatomy.layers)
    kv_heads = architecture.kv_heads or facts.kv_heads

    def pooled(linear: Linear) -> Linear:
        if kv_heads == facts.kv_heads or not ends_with(linear.name, _KEYS_AND_VALUES):
            return linear
        return linear.model_copy(update={"outputs": linear.outputs * kv_heads // facts.kv_heads})

    linear = tuple((pooled(each), stored if each.layered else 1) for each in anatomy.linear)
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
    """Return what the update trains in this model, at the start (AdaLoRA: with the rank before pruning)."""
    return UPDATE_OF[update.kind].cost.moving(update, model)


def _llama_anatomy(facts: ModelFacts) -> Anatomy:
    """Return the anatomy of a Llama of the same size, for models registered before anatomies were recorded."""
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
