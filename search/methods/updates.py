"""The weight updates, one declaration each.

Learning rates are relative to Tinker's rule for full fine-tuning (see `search.space.learning_rate`). LoRA's is ten
times that, as in the rule. On the recorded tables full fine-tuning was best at one to four times the rule, and
`top_layers` at four times its earlier rate, so both have twice the earlier one. Those marked "measured" were chosen
from factors about three times apart, by validation loss after 48 steps of sft on chats with one tiny model. In that
test the best rate of lora was 1 to 3 times the rate declared here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from luthier.models.base_model import Linear
from luthier.models.rescaled import rescaled
from luthier.updates import (
    AdaLora,
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
    RandLora,
    RsLora,
    TopLayers,
    Vera,
)
from search.methods.amounts import Moving, Passes, Shape, Sites, Work
from search.methods.spec import LAYERS_OF_MODEL, RANKS_OF_SEARCH, Size, UpdateCost, UpdateSpec

PISSA_MOST: Final = 32  # at most the smaller side of each matrix: a single key head often has only 64 or 32 rows
VERA_RANKS: Final = (64, 128, 256, 512)  # of the frozen matrices; each rank adds one parameter per layer
RANDLORA_RANKS: Final = (16, 32, 64)  # of each random matrix; a smaller rank trains more parameters
OFT_BLOCKS: Final = (8, 16, 32)  # divisors of the width of every common model
VIRTUAL_TOKENS: Final = (8, 16, 32, 64)
SVD_PASSES: Final = 34  # passes over each matrix in PiSSA: 16 power iterations in both directions, and two more

_REWARD_MAXIMISERS: Final = ("grpo", "rloo", "raft")


def _sites(update: Any, model: Shape) -> Sites:
    """Return the layers that get an adapter: all linear ones except the output head, or those of its placement."""
    match update.placement if isinstance(update, Placed) else "all":
        case "attention":
            return tuple(each for each in model.linear if each[0].attention)
        case "mlp":
            return tuple(each for each in model.linear if not each[0].attention)
        case "embeddings":
            tables = Linear(name="embeddings", inputs=model.facts.vocab_size, outputs=model.hidden, layered=False)
            return (*model.linear, (tables, 1))
        case _:
            return model.linear


def _adapter(
    numbers: Callable[[Any, Moving], float], tensors: int, frozen: Callable[[Any, Moving], float] | None = None
) -> Callable[[Any, Shape], Moving]:
    """Return how an adapter on linear layers counts: `numbers` in total, `tensors` per layer, and `frozen` numbers."""

    def moving(update: Any, model: Shape) -> Moving:
        found = Moving(numbers=0, tensors=0, sites=_sites(update, model))
        trained = round(numbers(update, found))
        fixed = 0 if frozen is None else round(frozen(update, found))
        return Moving(numbers=trained, tensors=tensors * found.count, added=trained + fixed, sites=found.sites)

    return moving


def _low_rank_numbers(update: Any, on: Moving) -> float:
    return float(update.rank * (on.inputs + on.outputs))


def _low_rank_pass(update: Any, moving: Moving, done: Passes) -> Work:
    return Work(flops=2 * done.tokens * moving.numbers, elements=2 * done.tokens * moving.outputs)


_LOW_RANK: Final = UpdateCost(
    moving=_adapter(_low_rank_numbers, tensors=2),
    forward=_low_rank_pass,
    kept_per_token=lambda update, moving: update.rank * moving.count,
)
_RANK: Final = Size(field="rank", axis="rank", values=RANKS_OF_SEARCH)


def _full(update: Full, model: Shape) -> Moving:
    return Moving(numbers=model.parameters, tensors=model.anatomy.tensors * model.stored_layers + 2)


def _top_layers(update: TopLayers, model: Shape) -> Moving:
    each = (model.parameters - model.outside) // model.stored_layers
    return Moving(
        numbers=update.layers * each + model.anatomy.last_norm,
        tensors=update.layers * model.anatomy.tensors + bool(model.anatomy.last_norm),
    )


def _layernorm(update: LayerNorm, model: Shape) -> Moving:
    norms = model.anatomy.norms * model.stored_layers + model.anatomy.outer_norms
    return Moving(numbers=norms, tensors=2 * model.stored_layers + 1)


def _bitfit(update: BitFit, model: Shape) -> Moving:
    biases = model.anatomy.biases * model.stored_layers + model.anatomy.outer_biases
    return Moving(numbers=biases, tensors=8 * model.stored_layers)


def _dora_pass(update: Dora, moving: Moving, done: Passes) -> Work:
    """Return LoRA's work plus the norm of each full weight matrix, in every pass."""
    squares = sum(layer.inputs**2 * times for layer, times in moving.sites)
    return Work(
        flops=2 * done.tokens * moving.numbers + 2 * done.passes * update.rank * (moving.weights + squares),
        elements=4 * done.tokens * moving.outputs + 5 * done.passes * moving.weights,
    )


def _vera_matrices(update: Any, on: Moving) -> float:
    """Return the size of the pair of random matrices, as wide as the widest layer, that all layers share."""
    return float(update.rank * (max(m.inputs for m, _ in on.sites) + max(m.outputs for m, _ in on.sites)))


def _vera_pass(update: Any, moving: Moving, done: Passes) -> Work:
    return Work(
        flops=2 * done.tokens * update.rank * (moving.inputs + moving.outputs),
        elements=done.tokens * (2 * update.rank * len(moving.sites) + 3 * moving.outputs),
    )


def _randlora_bases(update: RandLora, on: Moving) -> list[tuple[int, Linear, int]]:
    """Return for each layer how many random matrices fill its smaller side, the layer, and its count."""
    return [(math.ceil(min(m.inputs, m.outputs) / update.rank), m, times) for m, times in on.sites]


def _randlora_numbers(update: RandLora, on: Moving) -> float:
    """Return the size of the two diagonals per random matrix: over its rank, and over the layer's smaller side."""
    return float(
        sum(n * (update.rank + min(m.inputs, m.outputs)) * times for n, m, times in _randlora_bases(update, on))
    )


def _randlora_matrices(update: RandLora, on: Moving) -> float:
    """Return the size of the random matrices of the largest layer, which all layers share."""
    most = max(m.inputs for m, _ in on.sites), max(m.outputs for m, _ in on.sites)
    return float(update.rank * min(most) + max(most) * math.ceil(min(most) / update.rank) * update.rank)


def _randlora_pass(update: RandLora, moving: Moving, done: Passes) -> Work:
    """Return the work of full-rank matrices, which are rebuilt in every pass."""
    sides = [(n * update.rank, m.inputs + m.outputs, times) for n, m, times in _randlora_bases(update, moving)]
    size = sum(width * both * times for width, both, times in sides)
    return Work(flops=2 * done.tokens * size, elements=2 * done.tokens * moving.outputs + 3 * done.passes * size)


def _oft_pass(update: Oft, moving: Moving, done: Passes) -> Work:
    block, inputs = update.block, moving.inputs
    return Work(
        flops=2 * done.tokens * inputs * block + 8 * done.passes * inputs * block * block,
        elements=3 * done.tokens * inputs + 8 * done.passes * inputs * block,
    )


def _ia3(update: Ia3, model: Shape) -> Moving:
    within = [linear.name for linear, _ in model.linear if linear.attention]
    outputs, inputs = rescaled(within, [linear.name for linear, _ in model.linear if not linear.attention])
    sites = tuple(each for each in model.linear if each[0].name in {*outputs, *inputs})
    numbers = sum((m.inputs if m.name in inputs else m.outputs) * times for m, times in sites)
    return Moving(numbers=numbers, tensors=sum(times for _, times in sites), added=numbers, sites=sites)


def _prompt(update: Prompt, model: Shape) -> Moving:
    numbers = update.tokens * model.hidden
    return Moving(numbers=numbers, tensors=1, added=numbers)


def _prefix(update: Prefix, model: Shape) -> Moving:
    numbers = update.tokens * model.layers * 2 * model.kv_width
    return Moving(numbers=numbers, tensors=1, added=numbers)


def _adalora_start(update: AdaLora) -> int:
    return math.ceil(update.START * update.rank)


_VIRTUAL: Final[dict[str, Any]] = {
    "possible": lambda facts: facts.family == "decoder",
    "otherwise": "virtual tokens are for decoders, and {model} is an encoder",
    "refused": {
        "reward_model": "a reward model is a plain model with a head, and virtual tokens cannot be merged into it"
    }
    | dict.fromkeys(
        _REWARD_MAXIMISERS, "with virtual tokens, answers can be generated only one at a time, at many times the cost"
    ),
    "mergeable": False,
    "group": "tokens",
    "size": Size(field="tokens", axis="tokens", values=VIRTUAL_TOKENS),
}

UPDATES: Final = (
    UpdateSpec(
        member=Full,
        learning_rate=2.0,  # twice Tinker's: see bench/portfolio.py
        group="full",
        cost=UpdateCost(moving=_full, weight_gradients="all", trains_norms=True),
    ),
    UpdateSpec(member=Lora, learning_rate=10.0, group="low_rank", size=_RANK, cost=_LOW_RANK),
    UpdateSpec(member=RsLora, learning_rate=10.0, group="low_rank", size=_RANK, cost=_LOW_RANK),
    UpdateSpec(
        member=Dora,
        learning_rate=10.0,
        group="low_rank",
        size=_RANK,
        cost=UpdateCost(
            moving=_adapter(lambda update, on: _low_rank_numbers(update, on) + on.outputs, tensors=3),
            forward=_dora_pass,
            calls=18,
            kept_per_token=lambda update, moving: 2 * moving.outputs + update.rank * moving.count,
            kept_once=lambda update, moving: moving.outputs,
        ),
    ),
    UpdateSpec(
        member=TopLayers,
        learning_rate=4.0,
        group="partial",
        size=Size(field="layers", axis="top_layers[{model}]", values=LAYERS_OF_MODEL),
        cost=UpdateCost(
            moving=_top_layers,
            reaches=lambda update, model: min(1.0, update.layers / model.layers),
            weight_gradients="layers",
            trains_norms=True,
        ),
    ),
    UpdateSpec(
        member=LayerNorm,
        learning_rate=250.0,  # measured
        group="scales",
        cost=UpdateCost(moving=_layernorm, trains_norms=True),
    ),
    UpdateSpec(
        member=BitFit,
        possible=lambda facts: facts.biases,
        otherwise="bitfit trains only biases, and {model} has none",
        learning_rate=150.0,  # measured
        group="scales",
        cost=UpdateCost(moving=_bitfit),
    ),
    UpdateSpec(
        member=Pissa,
        learning_rate=5.0,  # measured; its weights are large from the start, and all of them change at once
        group="low_rank",
        size=Size(field="rank", axis="rank[pissa]", values=RANKS_OF_SEARCH, most=PISSA_MOST),
        cost=UpdateCost(
            moving=_LOW_RANK.moving,
            forward=_LOW_RANK.forward,
            kept_per_token=_LOW_RANK.kept_per_token,
            applying=lambda update, moving: 4 * SVD_PASSES * update.rank * moving.weights,
        ),
    ),
    UpdateSpec(
        member=LoraPlus,
        learning_rate=2.5,  # the rate of A; B has 16 times that, so that their geometric mean is LoRA's
        group="low_rank",
        size=_RANK,
        cost=_LOW_RANK,
    ),
    UpdateSpec(
        member=Vera,
        learning_rate=300.0,  # measured
        group="adapters",
        size=Size(field="rank", axis="rank[vera]", values=VERA_RANKS),
        cost=UpdateCost(
            moving=_adapter(lambda update, on: on.outputs + update.rank * on.count, tensors=2, frozen=_vera_matrices),
            forward=_vera_pass,
            calls=10,
            kept_per_token=lambda update, moving: 2 * update.rank * moving.count + moving.outputs,
        ),
    ),
    UpdateSpec(
        member=RandLora,
        learning_rate=5.0,  # measured: 10 is best, and 30 diverges
        group="adapters",
        size=Size(field="rank", axis="rank[randlora]", values=RANDLORA_RANKS),
        cost=UpdateCost(
            moving=_adapter(_randlora_numbers, tensors=2, frozen=_randlora_matrices),
            forward=_randlora_pass,
            calls=14,
            kept_per_token=lambda update, moving: sum(
                n * update.rank * times for n, _, times in _randlora_bases(update, moving)
            ),
            kept_once=lambda update, moving: 2 * moving.weights,
        ),
    ),
    UpdateSpec(
        member=Ia3,
        learning_rate=500.0,  # measured
        group="scales",
        cost=UpdateCost(
            moving=_ia3,
            forward=lambda update, moving, done: Work(elements=2 * done.tokens * moving.numbers),
            calls=3,
            kept_per_token=lambda update, moving: moving.numbers,
        ),
    ),
    UpdateSpec(
        member=Oft,
        learning_rate=10.0,  # measured
        group="adapters",
        size=Size(field="block", axis="block", values=OFT_BLOCKS),
        cost=UpdateCost(
            moving=_adapter(lambda update, on: (update.block - 1) / 2 * on.inputs, tensors=1),
            forward=_oft_pass,
            calls=30,
            kept_per_token=lambda update, moving: moving.inputs,
            kept_once=lambda update, moving: 3 * update.block * moving.inputs,
        ),
    ),
    UpdateSpec(
        member=AdaLora,
        refused=dict.fromkeys(
            _REWARD_MAXIMISERS,
            "it prunes ranks by gradients, and a step whose answers all have the same reward has none",
        )
        | {"reward_model": "rloo or grpo must follow, and adalora suits neither"},
        learning_rate=50.0,  # measured
        group="low_rank",
        size=_RANK,
        cost=UpdateCost(
            moving=_adapter(
                lambda update, on: _adalora_start(update) * (on.inputs + on.outputs + on.count),
                tensors=3,
                frozen=lambda update, on: on.count,
            ),
            forward=_low_rank_pass,
            calls=8,
            kept_per_token=lambda update, moving: 2 * update.rank * moving.count,
            kept_once=lambda update, moving: 4 * moving.numbers,
            optimiser=(3.0, 4.0),  # for the importance of each parameter and the orthogonality loss
        ),
    ),
    UpdateSpec(member=Prompt, learning_rate=100.0, cost=UpdateCost(moving=_prompt), **_VIRTUAL),  # measured
    UpdateSpec(member=Prefix, learning_rate=500.0, cost=UpdateCost(moving=_prefix), **_VIRTUAL),  # measured
    UpdateSpec(
        member=QLora,
        four_bit=True,
        learning_rate=10.0,  # that of lora, as in the paper
        group="low_rank",
        size=_RANK,
        cost=_LOW_RANK,
    ),
)

UPDATE_OF: Final[Mapping[str, UpdateSpec]] = {spec.kind: spec for spec in UPDATES}
