"""The weight updates that a stage of a design can have, with their hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from luthier.values import Member

Placement = Literal["all", "attention", "mlp", "embeddings"]


PLACES: Final[Mapping[Placement, str]] = {
    "all": "all linear layers",
    "attention": "the linear layers of attention",
    "mlp": "the linear layers of the MLP",
    "embeddings": "all linear layers and the input embeddings",
}


class UpdateMember(Member):
    """Base of the weight updates."""

    def short(self) -> str:
        """For tables and logs: `lora r16`."""
        rank = getattr(self, "rank", None)
        return self.kind_name() if rank is None else f"{self.kind_name()} r{rank}"


class Full(UpdateMember):
    """Full fine-tuning: every parameter is trained."""

    kind: Literal["full"] = "full"

    def describe(self) -> str:
        return "all parameters are trained"


class TopLayers(UpdateMember):
    """Trains the last `layers` transformer layers and the final norm; everything else is frozen."""

    kind: Literal["top_layers"] = "top_layers"
    layers: int = Field(ge=1, description="transformer layers that are trained")

    def describe(self) -> str:
        return f"the last {self.layers} layers and the final norm, if there is one, are trained; the rest is frozen"

    def short(self) -> str:
        return f"top {self.layers} layers"


class Placed(UpdateMember):
    """Base of the updates that can be limited to some of a model's modules."""

    placement: Placement = Field(
        default="all",
        exclude_if=lambda placement: placement == "all",  # designs older than the field keep their text and digest
        description="target_modules: `all` linear layers except the output head, those of `attention` or of the `mlp` "
        "only, or `embeddings` (all linear layers and the input embeddings)",
    )

    @property
    def place(self) -> str:
        """The placement in words."""
        return PLACES[self.placement]

    def short(self) -> str:
        where = {"all": "", "embeddings": " and embeddings"}.get(self.placement, f" on {self.placement}")
        return super().short() + where


class Lora(Placed):
    """Low-rank adapters on linear layers (Hu et al. 2021), scaled by alpha/rank."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(ge=1)
    alpha: int = Field(default=32, ge=1)

    def describe(self) -> str:
        return f"low-rank adapters of rank {self.rank} on {self.place}, scaled by {self.alpha}/{self.rank}"


class RsLora(Placed):
    """Rank-stabilised LoRA (Kalajdzievski 2023): scaled by alpha/sqrt(rank), which keeps high ranks stable."""

    kind: Literal["rslora"] = "rslora"
    rank: int = Field(ge=1)
    alpha: int = Field(default=16, ge=1)

    def describe(self) -> str:
        return f"low-rank adapters of rank {self.rank} on {self.place}, scaled by {self.alpha}/√{self.rank}"


class Dora(Placed):
    """DoRA (Liu et al. 2024): LoRA on the direction of each weight, and a learned vector for its magnitude."""

    kind: Literal["dora"] = "dora"
    rank: int = Field(ge=1)
    alpha: int = Field(default=32, ge=1)

    def describe(self) -> str:
        return (
            f"low-rank adapters of rank {self.rank} on {self.place}, scaled by {self.alpha}/{self.rank}, for the "
            "direction of "
            "each weight, and a learned vector for its magnitude"
        )


class LayerNorm(UpdateMember):
    """LayerNorm tuning (Zhao et al. 2023): only the parameters of the normalisation layers are trained."""

    kind: Literal["layernorm"] = "layernorm"

    def describe(self) -> str:
        return "the normalisation layers are trained; the rest is frozen"


class BitFit(UpdateMember):
    """BitFit (Ben Zaken et al. 2021): only the biases are trained."""

    kind: Literal["bitfit"] = "bitfit"

    def describe(self) -> str:
        return "the biases are trained; the rest is frozen"


class Pissa(Placed):
    """PiSSA (Meng et al. 2024): LoRA initialised with each weight's principal singular vectors; the rest is frozen."""

    kind: Literal["pissa"] = "pissa"
    rank: int = Field(ge=1)
    placement: Literal["all", "attention", "mlp"] = Field(
        default="all",
        exclude_if=lambda placement: placement == "all",
        description="target_modules as for lora, except the embeddings, which PiSSA does not support",
    )

    def describe(self) -> str:
        return (
            f"adapters of rank {self.rank} on {self.place}, which start as the principal components of each weight "
            f"over a frozen residual; saved as plain LoRA of rank {2 * self.rank} on the base model"
        )


class LoraPlus(Placed):
    """LoRA+ (Hayou et al. 2024): the learning rate of the B matrices is `ratio` times that of the A matrices."""

    kind: Literal["lora_plus"] = "lora_plus"
    rank: int = Field(ge=1)
    alpha: int = Field(default=32, ge=1)
    ratio: float = Field(default=16.0, ge=1, description="learning rate of B over that of A")

    def describe(self) -> str:
        return (
            f"low-rank adapters of rank {self.rank} on {self.place}, scaled by {self.alpha}/{self.rank}, whose B "
            "matrices "
            f"learn {self.ratio:g} times faster than the A matrices"
        )


class Vera(UpdateMember):
    """VeRA (Kopiczko et al. 2024): two learned vectors per linear layer scale random matrices that all layers share."""

    kind: Literal["vera"] = "vera"
    rank: int = Field(ge=1)

    def describe(self) -> str:
        return (
            f"two learned vectors per linear layer, which scale random matrices of rank {self.rank} shared by all "
            "layers"
        )


class Ia3(UpdateMember):
    """(IA)³ (Liu et al. 2022): learned vectors rescale the keys, the values and the feed-forward activations."""

    kind: Literal["ia3"] = "ia3"

    def describe(self) -> str:
        return "learned vectors that rescale keys, values and the inner activations of the feed-forward layers"


class Oft(UpdateMember):
    """OFT (Qiu et al. 2023): learned rotations of the inputs of all linear layers, in blocks of `block` features."""

    kind: Literal["oft"] = "oft"
    block: int = Field(ge=2)

    def describe(self) -> str:
        return f"orthogonal rotations of the inputs of all linear layers, in blocks of {self.block} features"

    def short(self) -> str:
        return f"oft {self.block}×{self.block}"


class AdaLora(UpdateMember):
    """AdaLoRA (Zhang et al. 2023): LoRA in SVD form that moves rank to the layers that need it.

    Training starts with 1.5 times `rank` and prunes to a mean of `rank`, on a schedule that scales with the steps.
    """

    START: ClassVar[float] = 1.5  # the rank before pruning, as a multiple of the rank at the end

    kind: Literal["adalora"] = "adalora"
    rank: int = Field(ge=1, description="mean rank at the end of training")
    alpha: int = Field(default=32, ge=1)
    orthogonality: float = Field(default=0.5, ge=0, description="weight of the orthogonality regulariser in the loss")

    def describe(self) -> str:
        return (
            "low-rank adapters in SVD form on all linear layers, pruned during training to a mean rank of "
            f"{self.rank}, "
            f"scaled by {self.alpha}/{math.ceil(self.START * self.rank)}"
        )


class Prompt(UpdateMember):
    """Prompt tuning (Lester et al. 2021): learned embeddings in front of every sequence; the model is frozen."""

    kind: Literal["prompt"] = "prompt"
    tokens: int = Field(ge=1, description="virtual tokens")

    def describe(self) -> str:
        return f"{self.tokens} learned embeddings before every sequence; the model is frozen"

    def short(self) -> str:
        return f"prompt of {self.tokens} tokens"


class Prefix(UpdateMember):
    """Prefix tuning (Li & Liang 2021): learned keys and values in front of every sequence, in each layer."""

    kind: Literal["prefix"] = "prefix"
    tokens: int = Field(ge=1, description="virtual tokens")

    def describe(self) -> str:
        return f"{self.tokens} learned keys and values before every sequence, in each layer; the model is frozen"

    def short(self) -> str:
        return f"prefix of {self.tokens} tokens"


class QLora(UpdateMember):
    """QLoRA (Dettmers et al. 2023): LoRA on all linear layers of a base model quantised to 4 bits (NF4)."""

    kind: Literal["qlora"] = "qlora"
    rank: int = Field(ge=1)
    alpha: int = Field(default=32, ge=1)

    def describe(self) -> str:
        return (
            f"low-rank adapters of rank {self.rank} on all linear layers, scaled by {self.alpha}/{self.rank}, over a "
            "4-bit base "
            "(NF4); the exported weights are the de-quantised base with the adapters merged in"
        )


Update = Annotated[
    Full
    | TopLayers
    | Lora
    | RsLora
    | Dora
    | LayerNorm
    | BitFit
    | Pissa
    | LoraPlus
    | Vera
    | Ia3
    | Oft
    | AdaLora
    | Prompt
    | Prefix
    | QLora,
    Field(discriminator="kind"),
]


AdapterUpdate = Lora | RsLora | Dora | Pissa | LoraPlus | Vera | Ia3 | Oft | AdaLora | Prompt | Prefix | QLora


VirtualTokens = Prompt | Prefix  # these cannot be merged into the weights of the model
