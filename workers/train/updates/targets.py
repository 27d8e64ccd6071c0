"""Where adapters belong: the linear layers of the transformer, and fused experts.

Never the output head, and never the router or a gate of a mixture of experts: it decides which experts learn. Never a
layer whose weight the model reads without calling it (some state-space projections), or whose weight another layer has
too (Zamba's shared blocks): an adapter there would have no effect, or another one than the merged weights.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import torch
from torch.nn import Linear, Module, Parameter
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from luthier.errors import Infeasible
from luthier.models.rescaled import ends_with, rescaled
from luthier.updates import Placement

ALL_LINEAR: Final = "all-linear"  # PEFT's shorthand for every linear layer except the output head
_INDEX: Final = re.compile(r"\.\d+\.")  # the number of a transformer layer in a module's name
_ROUTER: Final = re.compile(r"(Router|Gate|Gating)$")  # at the end of a class's name
_GATES: Final = frozenset({"gate", "router", "shared_expert_gate", "wg"})  # names of modules in a mixture of experts
# Layers whose weight fast kernels read without calling them. PEFT refuses low-rank adapters there.
_KERNELS: Final = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})
_READ_BY_KERNELS: Final = "out_proj"
_EXPERTS: Final = re.compile(r"\bexperts?\b")
_PROBE: Final = tuple(range(3, 11))  # token ids

Targets = list[str] | str


def places(model: PreTrainedModel, placement: Placement) -> Targets:
    """Return PEFT's `target_modules` for a placement: sorted module names, relative to their transformer layer.

    `all-linear` where that is what PEFT means by it. Linear layers inside a module of a class named `…Attention` count
    as attention; all others as MLP. Raises Infeasible if the model has none of a kind, or if its embeddings are tied:
    an adapter on them could not be merged.
    """
    linear = linear_layers(model)
    match placement:
        case "all":
            chosen = list(linear)
        case "embeddings":
            chosen = [*linear, _untied_embeddings(model)]
        case "attention":
            chosen = [name for name in linear if _in_attention(model, name)]
        case "mlp":
            chosen = [name for name in linear if not _in_attention(model, name)]
    if not chosen and not (placement != "attention" and fused_experts(model)):
        raise Infeasible(f"{type(model).__name__} has no linear layers for the placement {placement}")
    # PEFT would take `all-linear` to mean the experts of older versions too, where they are fused now.
    plain = set(chosen) == _all_linear(model) and not fused_experts(model)
    return ALL_LINEAR if plain else relative(model, chosen)


def linear_layers(model: PreTrainedModel) -> dict[str, Module]:
    """Return the linear layers that adapters can be put on, by their full names."""
    every = {name: module for name, module in model.named_modules() if name in _all_linear(model)}
    hidden = _READ_BY_KERNELS if model.config.model_type in _KERNELS else None
    shared = Counter(id(module.weight) for module in every.values())
    kept = {
        name: module
        for name, module in every.items()
        if not _routes(model, name) and _own(name) != hidden and shared[id(module.weight)] == 1
    }
    unused = _unused(model, kept)
    return {name: module for name, module in kept.items() if name not in unused}


def fused_experts(model: PreTrainedModel) -> list[str]:
    """Return the parameters that hold the matrices of all experts of a layer, [experts, …, …], for PEFT's
    `target_parameters`: sorted names, relative to their transformer layer."""
    names = [
        f"{name}.{own}"
        for name, module in model.named_modules()
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3 and _EXPERTS.search(name)
    ]
    return sorted({_INDEX.split(name, 1)[-1] for name in names})


def relative(model: PreTrainedModel, chosen: Iterable[str]) -> list[str]:
    """Return sorted names relative to their transformer layer, which PEFT matches at the end of a module's name.

    Full names where shorter ones would reach other modules too.
    """
    wanted = set(chosen)
    short = {_INDEX.split(name, 1)[-1] for name in wanted}
    reached = {
        name for name, _ in model.named_modules() if name in short or name.endswith(tuple(f".{s}" for s in short))
    }
    return sorted(short if reached == wanted else wanted)


def is_turned(module: Module) -> bool:
    """Return whether the layer stores its weight as (inputs, outputs), as GPT-2's Conv1D does."""
    return isinstance(module, Conv1D)


def shape_of(module: Module) -> tuple[int, int]:
    """Return the outputs and inputs of a linear layer."""
    weight = module.weight
    assert isinstance(weight, Parameter)
    rows, columns = weight.shape
    return (columns, rows) if is_turned(module) else (rows, columns)


def _all_linear(model: PreTrainedModel) -> set[str]:
    head = model.get_output_embeddings()
    return {n for n, m in model.named_modules() if isinstance(m, (Linear, Conv1D)) and m is not head}


def _in_attention(model: PreTrainedModel, name: str) -> bool:
    return any(type(above).__name__.endswith("Attention") for above in _above(model, name))


def _above(model: PreTrainedModel, name: str) -> list[Module]:
    """Return the modules that a module is inside of."""
    parts = name.split(".")
    return [model.get_submodule(".".join(parts[:depth])) for depth in range(1, len(parts))]


def _routes(model: PreTrainedModel, name: str) -> bool:
    """Return whether a linear layer is the router or a gate of a mixture of experts, or part of one."""
    *_, own = name.split(".")
    above = _above(model, name)
    if any(_ROUTER.search(type(module).__name__) for module in above) or "router" in name.split("."):
        return True
    return own in _GATES and bool(above) and any(_EXPERTS.search(child) for child, _ in above[-1].named_children())


@torch.no_grad()
def _unused(model: PreTrainedModel, linear: dict[str, Module]) -> set[str]:
    """Return which of these layers a forward pass does not call. An expert that got no token counts as called."""
    called: set[str] = set()

    def note(name: str) -> Any:
        return lambda *_: called.add(name)

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in linear.items()]
    try:
        model(input_ids=torch.tensor([_PROBE], device=model.device))
    finally:
        for hook in hooks:
            hook.remove()
    return {name for name in linear if name not in called and not _EXPERTS.search(name)}


def _untied_embeddings(model: PreTrainedModel) -> str:
    embeddings = model.get_input_embeddings()
    if (head := model.get_output_embeddings()) is not None and head.weight is embeddings.weight:
        raise Infeasible(
            f"{type(model).__name__} has tied embeddings: an adapter on them would change the output head too"
        )
    found: str = next(name for name, module in model.named_modules() if module is embeddings)
    return found


def rescaled_targets(model: PreTrainedModel) -> dict[str, list[str]]:
    """Return IA³'s `target_modules` and `feedforward_modules` for PEFT.

    Raises Infeasible if the model has no keys and values that can be rescaled.
    """
    linear = linear_layers(model)
    attention = [name for name in linear if _in_attention(model, name)]
    attending, outputs = rescaled(attention, [name for name in linear if name not in attention])
    if not attending:
        raise Infeasible(f"{type(model).__name__} has no layers for keys and values that ia3 could rescale")
    targets = relative(model, [*attending, *outputs])
    inputs = [target for target in targets if any(ends_with(name, [target]) for name in outputs)]
    return {"target_modules": targets, "feedforward_modules": inputs}


def _own(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def require_fitting(linear: dict[str, Module], kind: str, rank: int) -> None:
    """Raise Infeasible if the rank of an update exceeds a side of one of these layers."""
    for name, module in linear.items():
        if min(shape_of(module)) < rank:
            shape = " × ".join(map(str, shape_of(module)))
            raise Infeasible(f"{kind} needs weights of at least rank {rank}, but {name} is {shape}")


def reached(linear: dict[str, Module], targets: Targets) -> dict[str, Module]:
    """Return those of these layers that PEFT's `target_modules` name."""
    if isinstance(targets, str):
        return linear
    return {name: module for name, module in linear.items() if ends_with(name, targets)}
