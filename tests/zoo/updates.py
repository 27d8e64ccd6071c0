"""The weight updates that are tried on every member of the zoo, small enough for its layers."""

from __future__ import annotations

from typing import Final

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
