"""Checkpoints: the whole training state of a trial, as safetensors and JSON. On a CPU resuming is bit-exact."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

TENSORS, STATE = "state.safetensors", "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a trial has been trained."""

    stage: int
    step: int  # optimiser steps taken in this stage
    tokens: int  # tokens trained on in all stages so far


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A position, and tensors by name:

    weights.NAME             the trained parameters
    moment1.NAME, moment2.…  AdamW's moments
    update.NAME              the weight update's own state (AdaLoRA's ranks)
    reference                [examples, sequences per example]: reference log-probabilities
    first.NAME               the trained parameters at the start of the stage, where these are the reference
    average.NAME             the moving average of the trained parameters, at a constant learning rate
    best.NAME, best_step     the average that is the stage's result so far, and its step, if one was kept
    stopped                  the stage ends here, before its last step
    updates                  number of steps that changed parameters, if fewer than all
    lengths                  [finished stages, 3]: steps to the result, the same in epochs, steps trained
    carried.NAME             all weights of the model, once an earlier stage's update was merged into it
    scorer.NAME              the reward model that an earlier stage trained
    """

    position: Position
    tensors: dict[str, torch.Tensor]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors under a prefix, by their names without it."""
        start = prefix + "."
        return {name.removeprefix(start): tensor for name, tensor in self.tensors.items() if name.startswith(start)}


def save(checkpoint: Checkpoint, folder: Path) -> list[Path]:
    """Write a checkpoint into `folder`. Return the files written."""
    tensors, state = folder / TENSORS, folder / STATE
    save_file({name: t.detach().contiguous().cpu() for name, t in checkpoint.tensors.items()}, tensors)
    state.write_text(json.dumps(asdict(checkpoint.position)))
    return [tensors, state]


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint that `save` wrote."""
    position = Position(**json.loads((folder / STATE).read_text()))
    return Checkpoint(position=position, tensors=load_file(folder / TENSORS))
