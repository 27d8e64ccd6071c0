"""The designs whose exports are tried. `make test` tries every choice at least once, `make test-all` every design."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from luthier.algorithms import Clm, Dpo, Gkd, Ipo, Kto, Mlm, Orpo, Sft, Simpo
from luthier.design import Optimiser, Stage
from luthier.task import DataKind
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
    Vera,
)
from tests.covering import params

pytestmark = pytest.mark.xdist_group("export")  # each design is trained once, for all tests


@dataclass(frozen=True, kw_only=True)
class Plan:
    kind: DataKind
    stages: tuple[Stage, ...]
    edits: dict[str, Any] | None = None
    chat_template: bool = True
    published: str | None = None  # a chat template that TRL ships, in place of the model's own
    biases: bool = False
    wrapped: bool = False  # the base is a model for images and text, trained as a whole
    tools: bool = False
    encoder: bool = False
    headless: bool = False
    tied: bool = True
    has_adapter: bool
    merges: bool = True


def optimiser(learning_rate: float, **more: Any) -> Optimiser:
    return Optimiser(learning_rate=learning_rate, warmup=0.2, **more)


MERGED_SPECIALLY = {"adalora", "qlora"}  # masks of ranks, and a base of four bits
AN_EPOCH_AND_A_HALF = optimiser(5e-3, epochs=1.5)
PLANS = {
    "sft lora on pairs": Plan(
        kind=DataKind.PAIRS,
        stages=(Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),),
        has_adapter=True,
    ),
    "gkd lora on pairs": Plan(
        kind=DataKind.PAIRS,
        stages=(
            Stage(
                algorithm=Gkd(teacher="tiny-teacher", share=0.0),
                update=Lora(rank=4),
                optimiser=optimiser(5e-3, epochs=4),
            ),
        ),
        has_adapter=True,
    ),
    "sft lora on pairs, averaged": Plan(
        kind=DataKind.PAIRS,
        stages=(Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=optimiser(5e-3, epochs=3, schedule="constant")),),
        has_adapter=True,
    ),
    "sft+dpo adalora on preference, averaged": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=AdaLora(rank=4), optimiser=optimiser(5e-3, epochs=3, schedule="constant")),
            Stage(algorithm=Dpo(), update=AdaLora(rank=4), optimiser=optimiser(2e-3, schedule="constant")),
        ),
        has_adapter=True,
    ),
    "sft randlora on pairs": Plan(
        kind=DataKind.PAIRS,
        stages=(Stage(algorithm=Sft(), update=RandLora(rank=32), optimiser=optimiser(3e-3, epochs=1.5)),),
        has_adapter=True,
    ),
    "clm full on text": Plan(
        kind=DataKind.TEXT,
        stages=(Stage(algorithm=Clm(), update=Full(), optimiser=optimiser(1e-3, weight_decay=0.1)),),
        has_adapter=False,
    ),
    "dpo rslora on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(Stage(algorithm=Dpo(), update=RsLora(rank=4), optimiser=optimiser(2e-3)),),
        has_adapter=True,
    ),
    "sft+dpo lora on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),
            Stage(algorithm=Dpo(beta=0.3), update=Lora(rank=4), optimiser=optimiser(2e-3)),
        ),
        has_adapter=True,
    ),
    "sft lora on chat, fewer layers and heads": Plan(
        kind=DataKind.CHAT,
        stages=(Stage(algorithm=Sft(), update=Lora(rank=8), optimiser=AN_EPOCH_AND_A_HALF),),
        edits={"layers": 4, "kv_heads": 2},
        has_adapter=False,
    ),
    "sft full on pairs, fewer layers by influence": Plan(
        kind=DataKind.PAIRS,
        stages=(Stage(algorithm=Sft(), update=Full(), optimiser=optimiser(1e-3)),),
        edits={"layers": 4, "depth_rule": "block_influence"},
        has_adapter=False,
    ),
    "sft lora on chat, windowed": Plan(
        kind=DataKind.CHAT,
        stages=(Stage(algorithm=Sft(), update=Lora(rank=8), optimiser=AN_EPOCH_AND_A_HALF),),
        edits={"layers": 5, "window": 8},
        has_adapter=False,
    ),
    "sft lora on chat, a longer context": Plan(
        kind=DataKind.CHAT,
        stages=(Stage(algorithm=Sft(), update=Lora(rank=8), optimiser=AN_EPOCH_AND_A_HALF),),
        edits={"layers": 5, "rope_factor": 2},
        has_adapter=False,
    ),
    "clm full on text, a longer context and a window": Plan(
        kind=DataKind.TEXT,
        stages=(Stage(algorithm=Clm(), update=Full(), optimiser=optimiser(1e-3)),),
        edits={"window": 16, "rope_factor": 4, "rope_rule": "linear"},
        has_adapter=False,
    ),
    "sft+dpo lora on preference, its own tokens": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),
            Stage(algorithm=Dpo(beta=0.3), update=Lora(rank=4), optimiser=optimiser(2e-3)),
        ),
        published="deepseek_r1_distill",
        has_adapter=True,
    ),
    "sft+kto lora on unpaired, its own tokens": Plan(
        kind=DataKind.UNPAIRED,
        stages=(
            Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),
            Stage(algorithm=Kto(desirable_weight=1.5), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),
        ),
        published="deepseek_r1_distill",
        has_adapter=True,
    ),
    "orpo lora on preference, its own tokens": Plan(
        kind=DataKind.PREFERENCE,
        stages=(Stage(algorithm=Orpo(beta=0.5), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),),
        published="deepseek_r1_distill",
        has_adapter=True,
    ),
    "clm+sft lora on chat, its own tokens": Plan(
        kind=DataKind.CHAT,
        stages=(
            Stage(algorithm=Clm(), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),
            Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),
        ),
        published="qwen3",
        has_adapter=True,
    ),
    "clm dora on pairs": Plan(
        kind=DataKind.PAIRS,
        stages=(Stage(algorithm=Clm(), update=Dora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),),
        has_adapter=True,
    ),
    "sft+dpo top layers on preference, no chat template": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=TopLayers(layers=2), optimiser=optimiser(2e-3)),
            Stage(algorithm=Dpo(), update=TopLayers(layers=2), optimiser=optimiser(1e-3)),
        ),
        chat_template=False,
        has_adapter=False,
    ),
    "ipo lora on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(Stage(algorithm=Ipo(beta=0.2), update=Lora(rank=4), optimiser=optimiser(2e-3)),),
        has_adapter=True,
    ),
    "sft+ipo full on preference, no chat template": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=Full(), optimiser=optimiser(1e-3)),
            Stage(algorithm=Ipo(beta=0.5), update=Full(), optimiser=optimiser(3e-4)),
        ),
        chat_template=False,
        has_adapter=False,
    ),
    "simpo full on preference, no chat template": Plan(
        kind=DataKind.PREFERENCE,
        stages=(Stage(algorithm=Simpo(beta=2.5, gamma=0.5), update=Full(), optimiser=optimiser(3e-4)),),
        chat_template=False,
        has_adapter=False,
    ),
    "sft+simpo lora on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),
            Stage(algorithm=Simpo(), update=Lora(rank=4), optimiser=optimiser(1e-3)),
        ),
        has_adapter=True,
    ),
    "orpo lora on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(Stage(algorithm=Orpo(beta=0.5), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),),
        has_adapter=True,
    ),
    "orpo top layers on preference, no chat template": Plan(
        kind=DataKind.PREFERENCE,
        stages=(Stage(algorithm=Orpo(), update=TopLayers(layers=2), optimiser=optimiser(2e-3)),),
        chat_template=False,
        has_adapter=False,
    ),
    "kto lora on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(Stage(algorithm=Kto(beta=0.3), update=Lora(rank=4), optimiser=optimiser(5e-3)),),
        has_adapter=True,
    ),
    "sft+kto lora on unpaired": Plan(
        kind=DataKind.UNPAIRED,
        stages=(
            Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),
            Stage(algorithm=Kto(desirable_weight=1.5), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),
        ),
        has_adapter=True,
    ),
    "kto top layers on unpaired, no chat template": Plan(
        kind=DataKind.UNPAIRED,
        stages=(Stage(algorithm=Kto(), update=TopLayers(layers=2), optimiser=optimiser(2e-3)),),
        chat_template=False,
        has_adapter=False,
    ),
    "sft layernorm on chat": Plan(
        kind=DataKind.CHAT,
        stages=(Stage(algorithm=Sft(), update=LayerNorm(), optimiser=optimiser(2e-1, epochs=1.5)),),
        has_adapter=False,
    ),
    "clm bitfit on text": Plan(
        kind=DataKind.TEXT,
        stages=(Stage(algorithm=Clm(), update=BitFit(), optimiser=optimiser(1e-1, epochs=1.5)),),
        biases=True,
        has_adapter=False,
    ),
    "sft+dpo pissa on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=Pissa(rank=4), optimiser=AN_EPOCH_AND_A_HALF),
            Stage(algorithm=Dpo(), update=Pissa(rank=4), optimiser=optimiser(2e-3)),
        ),
        has_adapter=True,
    ),
    "sft lora+ on pairs": Plan(
        kind=DataKind.PAIRS,
        stages=(Stage(algorithm=Sft(), update=LoraPlus(rank=4, ratio=8), optimiser=optimiser(1e-3, weight_decay=0.1)),),
        has_adapter=True,
    ),
    "sft+dpo vera on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=Vera(rank=64), optimiser=optimiser(2e-1)),
            Stage(algorithm=Dpo(), update=Vera(rank=64), optimiser=optimiser(2e-2)),
        ),
        has_adapter=True,
    ),
    "sft+dpo ia3 on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=Ia3(), optimiser=optimiser(3e-1, epochs=1.5)),
            Stage(algorithm=Dpo(), update=Ia3(), optimiser=optimiser(3e-2)),
        ),
        has_adapter=True,
    ),
    "dpo oft on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(Stage(algorithm=Dpo(), update=Oft(block=16), optimiser=optimiser(3e-3)),),
        has_adapter=True,
    ),
    "sft lora, then dpo full on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),
            Stage(algorithm=Dpo(), update=Full(), optimiser=optimiser(3e-4)),
        ),
        has_adapter=False,
    ),
    "sft pissa, then simpo lora on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=Pissa(rank=4), optimiser=AN_EPOCH_AND_A_HALF),
            Stage(algorithm=Simpo(), update=Lora(rank=4), optimiser=optimiser(1e-3)),
        ),
        has_adapter=False,
    ),
    "sft lora on chat with tools": Plan(
        kind=DataKind.CHAT,
        stages=(Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=optimiser(5e-3, epochs=0.5)),),
        tools=True,
        has_adapter=True,
    ),
    "mlm lora on text": Plan(
        kind=DataKind.TEXT,
        stages=(Stage(algorithm=Mlm(mask=0.3), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),),
        encoder=True,
        has_adapter=True,
    ),
    "mlm full on text, fewer layers": Plan(
        kind=DataKind.TEXT,
        stages=(Stage(algorithm=Mlm(), update=Full(), optimiser=optimiser(2e-3, epochs=1.5)),),
        edits={"layers": 3},
        encoder=True,
        has_adapter=False,
    ),
    "mlm top layers on text, no head": Plan(
        kind=DataKind.TEXT,
        stages=(Stage(algorithm=Mlm(), update=TopLayers(layers=2), optimiser=optimiser(5e-3, epochs=2)),),
        encoder=True,
        headless=True,
        has_adapter=False,
    ),
    "sft lora on pairs, of a model for images and text": Plan(
        kind=DataKind.PAIRS,
        stages=(Stage(algorithm=Sft(), update=Lora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),),
        wrapped=True,
        has_adapter=True,
    ),
    "sft lora on the attention, of pairs": Plan(
        kind=DataKind.PAIRS,
        stages=(Stage(algorithm=Sft(), update=Lora(rank=8, placement="attention"), optimiser=AN_EPOCH_AND_A_HALF),),
        has_adapter=True,
    ),
    "sft+dpo pissa on the mlp, of preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=Pissa(rank=4, placement="mlp"), optimiser=AN_EPOCH_AND_A_HALF),
            Stage(algorithm=Dpo(), update=Pissa(rank=4, placement="mlp"), optimiser=optimiser(2e-3)),
        ),
        has_adapter=True,
    ),
    "sft lora+ and embeddings, of pairs": Plan(
        kind=DataKind.PAIRS,
        stages=(
            Stage(
                algorithm=Sft(), update=LoraPlus(rank=4, placement="embeddings"), optimiser=optimiser(1e-3, epochs=2)
            ),
        ),
        tied=False,
        has_adapter=True,
    ),
    "sft+dpo qlora on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=QLora(rank=4), optimiser=AN_EPOCH_AND_A_HALF),
            Stage(algorithm=Dpo(), update=QLora(rank=4), optimiser=optimiser(2e-3)),
        ),
        has_adapter=False,
    ),
    "clm adalora on text": Plan(
        kind=DataKind.TEXT,
        stages=(Stage(algorithm=Clm(), update=AdaLora(rank=4), optimiser=optimiser(1e-2, epochs=2)),),
        has_adapter=True,
    ),
    "sft+dpo adalora on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=AdaLora(rank=4), optimiser=optimiser(1e-2, epochs=2)),
            Stage(algorithm=Dpo(), update=AdaLora(rank=4), optimiser=optimiser(3e-3)),
        ),
        has_adapter=True,
    ),
    "sft prompt on pairs": Plan(
        kind=DataKind.PAIRS,
        stages=(Stage(algorithm=Sft(), update=Prompt(tokens=8), optimiser=optimiser(1e-1, epochs=2)),),
        has_adapter=True,
        merges=False,
    ),
    "sft+dpo prompt on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(
            Stage(algorithm=Sft(), update=Prompt(tokens=8), optimiser=optimiser(1e-1, epochs=2)),
            Stage(algorithm=Dpo(), update=Prompt(tokens=8), optimiser=optimiser(1e-2)),
        ),
        has_adapter=True,
        merges=False,
    ),
    "sft prefix on chat": Plan(
        kind=DataKind.CHAT,
        stages=(Stage(algorithm=Sft(), update=Prefix(tokens=8), optimiser=optimiser(1e-1, epochs=2)),),
        has_adapter=True,
        merges=False,
    ),
    "orpo prefix on preference": Plan(
        kind=DataKind.PREFERENCE,
        stages=(Stage(algorithm=Orpo(), update=Prefix(tokens=8), optimiser=optimiser(1e-1, epochs=2)),),
        has_adapter=True,
        merges=False,
    ),
}


def proves(name: str) -> set[str]:
    """What the export of a plan proves: that its algorithms, kinds of update, edits and data are exported.

    How each update is merged, saved and loaded is tried by its conformance suite, too.
    """
    plan = PLANS[name]
    edits = plan.edits or {}
    proved = {str(plan.kind), *edits, *(f"{key} {edits[key]}" for key in edits if key.endswith("_rule"))}
    for at, stage in enumerate(plan.stages):
        proved |= {stage.algorithm.kind, type(stage.update).__mro__[1].__name__, f"stage {at}"}
        proved |= {stage.optimiser.schedule, *({stage.update.kind} & MERGED_SPECIALLY)}
    proved |= {f"{len({stage.update.kind for stage in plan.stages})} updates"}
    if plan.published:
        proved |= {"its own tokens"}
    flags = ("chat_template", "biases", "wrapped", "tools", "encoder", "headless", "tied", "has_adapter", "merges")
    return proved | {f"{flag} {getattr(plan, flag)}" for flag in flags}


CASES = params(PLANS, proves)


def cases(wanted: Callable[[Plan], bool]) -> list[Any]:
    """Return the parameters whose plans are wanted."""
    return [case for case in CASES if wanted(PLANS[case.id])]
