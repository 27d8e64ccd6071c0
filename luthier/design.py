"""A design is a recipe: one base model, one architecture edit, and up to three training stages.

Designs are frozen values. Each has one canonical JSON text and a digest of it, so the store, the search and the workers
agree on which designs are equal. A design without stages is the untuned base model. The data, the judge and the seed
are not part of a design: they belong to the job and the trial.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final, Literal

from pydantic import Field

from luthier.algorithms import Algorithm
from luthier.updates import Update
from luthier.values import Frozen

DepthRule = Literal["late", "block_influence"]


RopeRule = Literal["yarn", "linear"]


class Architecture(Frozen):
    """The base model, and edits of its architecture before training; `None` keeps the base's value.

    Fields added after the first release are left out of the JSON at their default.
    """

    base: str = Field(description="name of a registered base model", min_length=1)
    layers: int | None = Field(default=None, ge=1, description="depth: how many transformer layers are kept")
    kv_heads: int | None = Field(default=None, ge=1, description="key/value heads, made by mean pooling (MHA→GQA→MQA)")
    depth_rule: DepthRule = Field(
        default="late",
        exclude_if=lambda rule: rule == "late",  # designs older than the field keep their text and digest
        description="which layers are removed: `late`, a block just before the last one (Gromov et al. 2024), or "
        "`block_influence`, those that change the hidden state least on training rows (ShortGPT, Men et al. 2024)",
    )

    window: int | None = Field(
        default=None,
        ge=1,
        exclude_if=lambda window: window is None,
        description="sliding attention window: tokens that each token attends to, including itself",
    )
    rope_factor: float | None = Field(
        default=None,
        gt=1,
        le=64,
        exclude_if=lambda factor: factor is None,
        description="RoPE scaling: the context length as a multiple of the base's",
    )
    rope_rule: RopeRule = Field(
        default="yarn",
        exclude_if=lambda rule: rule == "yarn",
        description="RoPE scaling rule: `yarn` scales the low frequencies only (Peng et al. 2023), `linear` scales all "
        "positions (Chen et al. 2023). Dynamic rules are not available: they depend on the longest row of a batch, and "
        "batches are padding-free",
    )

    @property
    def edited(self) -> bool:
        return bool(self.edits())

    def edits(self) -> dict[str, str]:
        """What is changed of the base model, in a few words, by field: `{"kv_heads": "2 KV heads"}`."""
        found = {}
        if self.layers is not None:
            found["layers"] = f"{self.layers} layers" + (" by influence" if self.depth_rule != "late" else "")
        if self.kv_heads is not None:
            found["kv_heads"] = f"{self.kv_heads} KV heads"
        if self.window is not None:
            found["window"] = f"window {self.window}"
        if self.rope_factor is not None:
            found["rope_factor"] = f"context ×{self.rope_factor:g} {self.rope_rule}"
        return found


Schedule = Literal["cosine", "constant"]
SCHEDULES: Final[dict[Schedule, str]] = {
    "cosine": "The learning rate falls to zero over the training.",
    "constant": "The learning rate stays; the weights are averaged over about the last third of the steps.",
}


class Optimiser(Frozen):
    """AdamW with linear warm-up. The schedule says what follows.

    Under `cosine` the learning rate falls to zero over the stage, so the length of the stage is fixed beforehand. Under
    `constant` the rate stays, and the weights that count are their moving average over about the last third of the
    steps. Such a stage has a result at every step, and can be continued from every step.
    """

    learning_rate: float = Field(gt=0)
    batch_size: int = Field(default=8, ge=1, description="rows in one optimiser step")
    epochs: float = Field(default=1.0, gt=0, description="passes over the training rows")
    warmup: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="learning-rate warm-up, as a share of the steps; under `constant` of those of the first epoch",
    )
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Schedule = Field(
        default="cosine",
        exclude_if=lambda schedule: schedule == "cosine",  # designs older than the field keep their text and digest
        description="learning rate after the warm-up: `cosine` decay to zero, or `constant` with averaged weights",
    )


class Stage(Frozen):
    algorithm: Algorithm
    update: Update
    optimiser: Optimiser


class Design(Frozen):
    architecture: Architecture
    stages: tuple[Stage, ...] = Field(default=(), max_length=3)

    def canonical(self) -> str:
        """Return the canonical JSON text of this design: sorted keys, no spaces, defaults written out."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def digest(self) -> str:
        """Return the first 16 hex digits of the SHA-256 of the canonical text."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:16]

    @property
    def recipe(self) -> str:
        """The algorithms of the stages in order, e.g. `sft` or `sft+dpo`; `base` for the untuned model."""
        return "+".join(stage.algorithm.kind for stage in self.stages) or "base"

    @property
    def self_ending(self) -> bool:
        """Whether the training ends at its best moment, so that its length is not fixed beforehand."""
        return bool(self.stages) and self.stages[-1].optimiser.schedule == "constant"

    @property
    def epochs(self) -> float:
        """Passes over the training rows, at most, of all stages. That of a reward model trains another model."""
        return sum(stage.optimiser.epochs for stage in self.stages if stage.algorithm.kind != "reward_model")

    @property
    def teacher(self) -> str | None:
        """The base model that a stage distils, if there is one."""
        return next((t for stage in self.stages if (t := getattr(stage.algorithm, "teacher", None))), None)

    def summary(self) -> str:
        """Return the design in one line for tables and logs."""
        edits = self.architecture.edits()
        model = self.architecture.base + (f" ({', '.join(edits.values())})" if edits else "")
        return " → ".join([model, *map(_stage_summary, self.stages)]) if self.stages else f"{model}, untuned"


def distinct(designs: Sequence[Design]) -> list[str]:
    """Return the summary of each design; where another design has the same one, with the settings that differ."""
    found = [design.summary() for design in designs]
    alike: dict[str, dict[str, Design]] = {}
    for words, design in zip(found, designs, strict=True):
        alike.setdefault(words, {})[design.digest()] = design
    for at, design in enumerate(designs):
        others = list(alike[found[at]].values())
        if len(others) > 1:
            settings = [_settings(other) for other in others]
            mine = _settings(design)
            names = [name for name in mine if len({one.get(name) for one in settings}) > 1]
            found[at] += f" ({', '.join(f'{name} {mine[name]}' for name in names)})"
    return found


def _settings(design: Design) -> dict[str, str]:
    """Return all settings by name, prefixed by the stage where there are several."""
    found = {name: _text(value) for name, value in design.architecture}
    for index, stage in enumerate(design.stages, start=1):
        prefix = f"stage {index} " if len(design.stages) > 1 else ""
        for part in (stage.algorithm, stage.update, stage.optimiser):
            found |= {f"{prefix}{name.replace('_', ' ')}": _text(value) for name, value in part}
    return found


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _stage_summary(stage: Stage) -> str:
    o = stage.optimiser
    length = f"{'×' if o.schedule == 'cosine' else '≤'}{o.epochs:g}ep"  # under `constant` it is a limit
    return f"{stage.algorithm.kind} {stage.update.short()} lr {o.learning_rate:.2g} {length} b{o.batch_size}"
