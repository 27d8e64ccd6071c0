"""The weight updates that are tried on every member of the zoo, small enough for its layers."""

from __future__ import annotations

from typing import Final

from transformers import PreTrainedModel

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
    Prefix,
    Prompt,
    QLora,
    RandLora,
    RsLora,
    TopLayers,
    Update,
    Vera,
)
from workers.train.layout_probe import layout_of
from workers.train.layouts import Layout, RowLayout

FIRST: Final[tuple[Update, ...]] = (Full(), Lora(rank=2), Dora(rank=2), Ia3())  # those that `make test` tries
UPDATES: Final[tuple[Update, ...]] = (
    *FIRST,
    TopLayers(layers=1),
    LayerNorm(),
    BitFit(),
    RsLora(rank=2),
    LoraPlus(rank=2),
    Pissa(rank=2),
    QLora(rank=2),
    AdaLora(rank=2),
    Vera(rank=4),
    RandLora(rank=4),
    Oft(block=4),
    Prompt(tokens=3),
    Prefix(tokens=3),
)


def by_nature(model: PreTrainedModel, update: Update) -> bool:
    """Return whether the model can have the update: biases to train, or rows end to end for virtual tokens."""
    match update:
        case BitFit():
            return any(name.endswith(".bias") for name, _ in model.named_parameters())
        case Prompt() | Prefix():
            return layout_of(model) == Layout(rows=RowLayout.UNPADDED)
        case _:
            return True
