"""Every cell of the design space, tried on a tiny real model: `python -m tests.cells` records what is seen.

A cell is an algorithm under a weight update. It is trained by the one loop on rows that it can learn from, scored by
the judge on rows it has not seen, saved and loaded again by plain libraries, and its end is trained once more from a
checkpoint.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from peft import PeftModelForCausalLM
from transformers import AutoModelForCausalLM, PreTrainedModel

from luthier.design import Architecture, Design, Optimiser, Stage, Update
from luthier.model import BaseModelEntry, read_facts
from luthier.task import DataKind, JudgeSpec
from search import evidence, legality
from search.evidence import Evidence
from search.learning_rate import default_learning_rate
from search.rules import ALGORITHMS, UPDATES
from search.space import algorithm
from tests import data_samples
from tests.biased import biased
from workers import warm
from workers.judge import judge, renderer
from workers.train import checkpoint
from workers.train.algorithms import Example, objective
from workers.train.architectures import build
from workers.train.checkpoint import Checkpoint
from workers.train.forward import CausalModel
from workers.train.loop import Progress, Trained, train
from workers.train.updates import apply
from workers.warm import Base

MODELS: Final = Path(__file__).parent / "models"
SEED: Final = 5
ROWS, HELD_OUT, BATCH, EPOCHS = 32, 16, 4, 2
SIZES: Final[dict[str, dict[str, int]]] = {  # what an update has to be told beside its name
    **{kind: {"rank": 8} for kind in ("lora", "rslora", "dora", "pissa", "lora_plus", "qlora")},
    "vera": {"rank": 64},
    "oft": {"block": 8},
    "adalora": {"rank": 8},
    **{kind: {"tokens": 16} for kind in ("prompt", "prefix")},
    "top_layers": {"layers": 2},
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`program` is the algorithm, with the stages before it that it cannot do without."""

    program: str
    update: str
    kind: DataKind

    def __str__(self) -> str:
        return f"{self.program}-{self.update}"


def cells() -> list[Cell]:
    """Every cell that the table of legality allows for some base model, on the first kind of data that it fits."""
    return [
        Cell(program=rule.algorithm, update=update.update, kind=next(iter(rule.fits)))
        for rule, update in itertools.product(ALGORITHMS, UPDATES)
        if legality.program_refusal(update.update, rule.algorithm) is None
    ]


@cache
def base(update: str) -> tuple[Base, PreTrainedModel]:
    """The tiny model, and what of it is trained: with biases where the update moves nothing else."""
    folder = MODELS / "tiny-chat"
    entry = BaseModelEntry(name=folder.name, source=str(folder), facts=read_facts(folder))
    loaded = warm.base(entry)
    possible = legality.update_refusal(update, entry) is None
    return loaded, loaded.model if possible else biased(loaded.model)


def rows(kind: DataKind, count: int) -> list[dict[str, Any]]:
    samples = {
        DataKind.TEXT: data_samples.text,
        DataKind.PAIRS: data_samples.pairs,
        DataKind.CHAT: data_samples.chat,
        DataKind.PREFERENCE: data_samples.wishes,
    }
    return samples[kind](count)


class Onlooker:
    """Saves a checkpoint after so many steps in all, and keeps what the first one made of the tensors."""

    def __init__(self, folder: Path, save_after: int | None = None) -> None:
        self.folder, self.save_after, self.steps = folder, save_after, 0
        self.first: dict[str, torch.Tensor] = {}

    def after_step(self, progress: Progress) -> None:
        self.steps += 1
        if self.steps == 1:
            self.first = _tensors(progress.model)
        if self.steps == self.save_after:
            checkpoint.save(progress.checkpoint(), self.folder)


class Trial:
    """One cell's training, as often as it is wanted."""

    def __init__(self, cell: Cell, folder: Path) -> None:
        self.cell, self.folder = cell, folder
        self.base, self.pristine = base(cell.update)
        self.train_rows, self.held_out = rows(cell.kind, ROWS), rows(cell.kind, ROWS + HELD_OUT)[ROWS:]
        reward = cell.kind is DataKind.PREFERENCE
        self.spec = JudgeSpec(
            kind=cell.kind, validation="v", test="t", objective="reward" if reward else "perplexity", max_tokens=512
        )
        update = _update(cell.update)
        hidden: int = self.pristine.config.hidden_size
        self.design = Design(
            architecture=Architecture(base=self.base.entry.name),
            stages=tuple(
                Stage(
                    algorithm=algorithm(kind),
                    update=update,
                    optimiser=Optimiser(
                        learning_rate=3 * default_learning_rate(kind, cell.update, hidden),
                        batch_size=BATCH,
                        epochs=EPOCHS,
                    ),
                )
                for kind in cell.program.split("+")
            ),
        )

    @property
    def steps(self) -> int:
        return len(self.design.stages) * ROWS * EPOCHS // BATCH

    def examples(self, stage: Stage) -> Sequence[Example]:
        learn, render = objective(stage.algorithm), renderer(self.base.tokenizer, self.spec)
        return [example for row in self.train_rows for example in learn.examples(row, self.cell.kind, render)]

    def train(self, onlooker: Onlooker, resume: Checkpoint | None = None) -> Trained:
        model = build(self.pristine, self.design.architecture)
        return train(model, self.design, self.examples, seed=SEED, watch=onlooker, resume=resume)

    def score(self, model: CausalModel) -> tuple[str, float]:
        metrics = judge(model, self.base.tokenizer, self.spec, self.held_out)
        if self.spec.objective == "reward":
            assert metrics.reward is not None
            return str(metrics.reward_name), metrics.reward
        return "perplexity", metrics.perplexity


def prove(cell: Cell, folder: Path) -> Evidence:
    """Try a cell, with `folder` for what it saves."""
    trial = Trial(cell, folder)
    metric, untuned = trial.score(trial.pristine)
    start = _tensors(apply(build(trial.pristine, trial.design.architecture), _update(cell.update), SEED).model)
    onlooker = Onlooker(folder, save_after=trial.steps * 2 // 3)
    trained = trial.train(onlooker)
    end = _tensors(trained.applied.model)
    moved = {name for name in end if any(not torch.equal(at[name], start[name]) for at in (onlooker.first, end))}
    declared = set(trained.applied.trainable())
    torch.randn(3)  # another process has drawn other random numbers
    resumed = _tensors(trial.train(Onlooker(folder), checkpoint.load(folder)).applied.model)
    judged = trained.judged()
    reloaded = _reloaded(trained, judged, folder / "saved")
    return Evidence(
        program=cell.program,
        update=cell.update,
        base=trial.base.entry.name,
        data=cell.kind,
        metric=metric,
        untuned=untuned,
        trained=trial.score(judged)[1],
        moved=len(moved),
        still=len(end) - len(moved),
        as_declared=moved == declared,
        reloaded=trial.score(reloaded)[1],
        resumed=all(torch.equal(tensor, end[name]) for name, tensor in resumed.items()),
    )


def _reloaded(trained: Trained, judged: CausalModel, folder: Path) -> CausalModel:
    """The trained model as plain libraries load it: transformers, or PEFT where the adapter is all there is."""
    if isinstance(judged, PreTrainedModel):
        judged.save_pretrained(folder)
        return AutoModelForCausalLM.from_pretrained(folder).eval()
    trained.applied.save_adapter(folder)
    return PeftModelForCausalLM.from_pretrained(judged.get_base_model(), folder).eval()


def _update(kind: str) -> Update:
    stage = Stage.model_validate(
        {
            "algorithm": {"kind": "sft"},
            "update": {"kind": kind, **SIZES.get(kind, {})},
            "optimiser": {"learning_rate": 1},
        }
    )
    return stage.update


def _tensors(model: CausalModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in itertools.chain(model.named_parameters(), model.named_buffers())}


def main() -> int:
    parser = argparse.ArgumentParser(description="Try every cell of the design space and record what is seen.")
    parser.add_argument("--only", metavar="TEXT", help="try the cells whose name holds this, and record nothing")
    only = parser.parse_args().only
    found = []
    for cell in cells():
        if only and only not in str(cell):
            continue
        with tempfile.TemporaryDirectory() as folder:
            seen = prove(cell, Path(folder))
        found.append(seen)
        print(
            f"{cell!s:24}{seen.metric:22}{seen.untuned:10.4g} → {seen.trained:<10.4g}{'ok' if seen.passes else seen}",
            flush=True,
        )
    if not only:
        evidence.write(tuple(found))
    return 0 if all(seen.passes for seen in found) else 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
