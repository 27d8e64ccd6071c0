"""The whole state of a trial in training, as safetensors and JSON: resuming from it continues bit for bit on a CPU."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

TENSORS, STATE = "state.safetensors", "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a trial stands."""

    stage: int
    step: int  # optimiser steps done in this stage
    tokens: int  # tokens trained on so far, earlier stages included


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """`tensors` holds, by prefix: `weights.` the moving parameters, `moment1.`/`moment2.` AdamW's, `carried.` the plain
    model's weights where earlier stages changed them for good, `scorer.` the reward model that one of them trained,
    `update.` what the weight update keeps of its own, `reference` the reference log-probabilities or `first.` the
    moving parameters as the stage found them, whichever its objective compares with, `updates` how many of the stage's
    steps moved anything, where not all did."""

    position: Position
    tensors: dict[str, torch.Tensor]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors under a prefix, without it."""
        start = prefix + "."
        return {name.removeprefix(start): tensor for name, tensor in self.tensors.items() if name.startswith(start)}


def save(checkpoint: Checkpoint, folder: Path) -> list[Path]:
    """Write a checkpoint; returns the files written."""
    tensors, state = folder / TENSORS, folder / STATE
    save_file({name: t.detach().contiguous().cpu() for name, t in checkpoint.tensors.items()}, tensors)
    state.write_text(json.dumps(asdict(checkpoint.position)))
    return [tensors, state]


def load(folder: Path) -> Checkpoint:
    """Read what `save` wrote."""
    position = Position(**json.loads((folder / STATE).read_text()))
    return Checkpoint(position=position, tensors=load_file(folder / TENSORS))
