"""Every cell of the design space, tried on a tiny real model: `python -m tests.cells` records what is seen.

A cell is an algorithm under a weight update, or an edit of the architecture. It is trained by the one loop on rows that
it can learn from, scored on rows that it has not seen, saved and loaded again by plain libraries, and the last steps
are trained once more from a checkpoint. The score is the judge's; of reward maximisers it is the mean reward of answers
drawn from the model, which moves before the greedy one does; of reward models it is the accuracy on held-out pairs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from peft import PeftModelForCausalLM
from pydantic import TypeAdapter
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from luthier.algorithms import RewardModel
from luthier.design import Architecture, Design, Optimiser, Stage
from luthier.models.base_model import BaseModelEntry, read_facts
from luthier.task import DataKind, JudgeSpec
from luthier.updates import Update
from search.methods import ALGORITHMS, UPDATES, AlgorithmSpec, StageGoal, UpdateSpec
from search.space import validate, verified
from search.space.learning_rate import default_learning_rate
from search.space.space import algorithm
from search.space.verified import Evidence
from tests import data_samples
from tests.biased import biased
from tests.playing import MENTIONS_I
from workers import cache as warm
from workers.cache import Base
from workers.evaluate.judge import judge, renderer
from workers.train import checkpoint
from workers.train.algorithms import Example, Teacher, objective
from workers.train.architectures import build
from workers.train.checkpoint import Checkpoint
from workers.train.forward import CausalModel
from workers.train.layout_probe import keep_layout, layout_of
from workers.train.loop import Progress, Trained, train
from workers.train.reward_model import HEAD, Scorer, pair_accuracy
from workers.train.rollouts.play import World, play, world_of
from workers.train.updates import apply

MODELS: Final = Path(__file__).parent / "models"
SEED, BATCH = 5, 4
HELD_OUT: Final = 16
REPEATED: Final = 3  # steps: those after the checkpoint
SIZES: Final[dict[str, dict[str, int]]] = {  # required settings of an update
    **{kind: {"rank": 8} for kind in ("lora", "rslora", "dora", "pissa", "lora_plus", "qlora")},
    "vera": {"rank": 64},
    "randlora": {"rank": 16},
    "oft": {"block": 8},
    "adalora": {"rank": 8},
    **{kind: {"tokens": 16} for kind in ("prompt", "prefix")},
    "top_layers": {"layers": 2},
}
_UPDATE: Final[TypeAdapter[Update]] = TypeAdapter(Update)
EDITS: Final = {
    "layers, late": {"layers": 4},
    "layers, block influence": {"layers": 4, "depth_rule": "block_influence"},
    "GQA": {"kv_heads": 2},
    "MQA": {"kv_heads": 1},
    "window": {"window": 16},
    "RoPE, YaRN": {"rope_factor": 2.0},
    "RoPE, linear": {"rope_factor": 2.0, "rope_rule": "linear"},
    "all at once": {"layers": 4, "kv_heads": 2, "window": 16, "rope_factor": 2.0},
}


@dataclass(frozen=True, kw_only=True)
class Course:
    """How long an algorithm is trained, and at how many times its default learning rate: few steps ask for more."""

    rows: int = 24
    epochs: float = 2.0
    pace: float = 3.0
    settings: tuple[tuple[str, float | str], ...] = ()


COURSES: Final = {
    "grpo": Course(rows=8, epochs=4.0, pace=20.0),
    "rloo": Course(rows=8, epochs=4.0, pace=20.0, settings=(("group", 6),)),
    "raft": Course(rows=8, epochs=5.0, pace=4.0, settings=(("group", 8),)),
    "gkd": Course(pace=1.0, settings=(("teacher", "tiny-teacher"), ("share", 0.25))),
    "kto": Course(rows=32),
    "mlm": Course(rows=64, epochs=2.0, settings=(("mask", 0.4),)),
    "reward_model+rloo": Course(rows=8, epochs=4.0, settings=(("group", 2),)),  # it is the reward model that is tried
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`recipe` is the algorithm, and the stage that must follow it, if any."""

    recipe: str
    update: str
    kind: DataKind
    edit: str = ""

    def __str__(self) -> str:
        return f"{self.recipe}-{self.edit or self.update}"


def cells() -> list[Cell]:
    """Every cell that the table of legality allows for some base model, and every edit."""
    found = [
        Cell(recipe=rule.kind, update=update.kind, kind=_kind(rule.kind))
        for rule, update in itertools.product(ALGORITHMS, UPDATES)
        if not rule.followed_by
        if _goes(update, rule)
    ]
    found += [
        Cell(recipe=f"{rule.kind}+{rule.followed_by[0]}", update=update.kind, kind=_kind(rule.kind))
        for rule, update in itertools.product(ALGORITHMS, UPDATES)
        if rule.followed_by
        if _goes(update, rule)
    ]
    return found + [Cell(recipe="sft", update="full", kind=DataKind.PAIRS, edit=edit) for edit in EDITS]


def _goes(update: UpdateSpec, rule: AlgorithmSpec) -> bool:
    goes = validate.recipe_refusal(update.kind, rule.kind) is None
    return goes and (update.mergeable or rule.family == "decoder")


def _kind(name: str) -> DataKind:
    """The data of a cell: prompts with answers where the algorithm plays, else the first that it fits."""
    rule = next(rule for rule in ALGORITHMS if rule.kind == name)
    return DataKind.PAIRS if rule.goal is StageGoal.REWARDS else next(iter(rule.fits))


@cache
def base(encoder: bool, biases: bool) -> tuple[Base, PreTrainedModel]:
    """The tiny model, and the model to train: with biases added if the update trains nothing else."""
    folder = MODELS / ("tiny-encoder" if encoder else "tiny-chat")
    loaded = warm.base(BaseModelEntry(name=folder.name, source=str(folder), facts=read_facts(folder)))
    return loaded, biased(loaded.model) if biases and not loaded.entry.facts.biases else loaded.model


def rows(kind: DataKind, count: int) -> list[dict[str, Any]]:
    """Rows that any update learns from in a few steps: chosen and rejected answers differ in one word."""
    match kind:
        case DataKind.TEXT:
            return data_samples.text(count)
        case DataKind.PAIRS:
            return data_samples.pairs(count)
        case DataKind.PREFERENCE:
            return data_samples.wishes(count)
        case DataKind.UNPAIRED:
            return [
                {"prompt": row["prompt"], "completion": row["rejected" if i % 2 else "chosen"], "label": i % 2 == 0}
                for i, row in enumerate(data_samples.wishes(count))
            ]
        case DataKind.CHAT | DataKind.PROMPTS:
            raise ValueError(f"no cell is tried on {kind} data")


class Onlooker:
    """Saves a checkpoint after so many steps in all, and keeps what the first one of the policy made of it."""

    def __init__(self, folder: Path, save_after: int | None = None) -> None:
        self.folder, self.save_after, self.steps = folder, save_after, 0
        self.first: dict[str, torch.Tensor] = {}

    def after_step(self, progress: Progress) -> None:
        self.steps += 1
        if not self.first and progress.scorer is None:
            self.first = _tensors(progress.model)
        if self.steps == self.save_after:
            checkpoint.save(progress.checkpoint(), self.folder)


class Trial:
    """One cell's training, as often as it is wanted."""

    def __init__(self, cell: Cell, folder: Path) -> None:
        self.cell, self.folder = cell, folder
        rules = validate.rules(cell.recipe)
        self.rewarded = rules[-1].rewarded
        self.scores_pairs = len(rules) > 1
        self.encoder = rules[0].family == "encoder"
        self.base, self.pristine = base(self.encoder, cell.update == "bitfit")
        course = COURSES.get(cell.recipe) or COURSES.get(rules[-1].kind, Course())
        self.train_rows = rows(cell.kind, course.rows)
        self.held_out = rows(cell.kind, course.rows + HELD_OUT)[course.rows :]
        self.spec = JudgeSpec(
            kind=cell.kind,
            validation="v",
            test="t",
            objective="reward" if self.rewarded else "perplexity",
            grader=MENTIONS_I if cell.kind is DataKind.PAIRS and self.rewarded else None,
            max_tokens=512,
            max_new_tokens=4,
            family=self.base.entry.facts.family,
        )
        self.render = renderer(self.base.tokenizer, self.spec)
        self.update = _UPDATE.validate_python({"kind": cell.update, **SIZES.get(cell.update, {})})
        self.design = Design(
            architecture=Architecture(base=self.base.entry.name, **EDITS.get(cell.edit, {})),
            stages=tuple(self._stage(rule.kind, course) for rule in rules),
        )
        self.steps = len(rules) * int(course.rows * course.epochs) // BATCH

    def _stage(self, kind: str, course: Course) -> Stage:
        hidden: int = self.pristine.config.hidden_size
        own = course if self.cell.recipe.endswith(kind) else COURSES.get(kind, Course())
        rate = own.pace * default_learning_rate(kind, self.cell.update, hidden)
        return Stage(
            algorithm=algorithm(kind, dict(own.settings)),
            update=self.update,
            optimiser=Optimiser(learning_rate=rate, batch_size=BATCH, epochs=course.epochs),
        )

    def build(self) -> PreTrainedModel:
        ids = tuple(tokens.ids for row in self.train_rows[:4] for tokens in self.render.answers(row, self.cell.kind))
        return build(self.pristine, self.design.architecture, ids)

    def examples(self, stage: Stage) -> Sequence[Example]:
        learn = objective(stage.algorithm)
        return [example for row in self.train_rows for example in learn.examples(row, self.cell.kind, self.render)]

    @property
    def world(self) -> World | None:
        return world_of(self.spec, self.render)

    def train(self, onlooker: Onlooker, resume: Checkpoint | None = None) -> Trained:
        return train(
            self.build(),
            self.design,
            self.examples,
            seed=SEED,
            watch=onlooker,
            world=self.world,
            teacher=self.teacher,
            resume=resume,
        )

    @property
    def teacher(self) -> Teacher | None:
        """A copy of the base that has learnt the rows already, for an algorithm that distils one."""
        if self.design.teacher is None:
            return None
        taught = Trial(Cell(recipe="sft", update="full", kind=self.cell.kind), self.folder)
        model = _taught(self.cell.kind, taught)
        return Teacher(model=model, tokenizer=self.base.tokenizer, max_new_tokens=self.spec.max_new_tokens)

    def score(self, model: CausalModel) -> tuple[str, float]:
        """What is looked at of a plain model, and its value."""
        if self.rewarded and self.world is not None:
            played = play(model, self.world, self.train_rows, attempts=8, seed=1)
            return "mean reward", sum(rollout.reward for rollout in played) / len(played)
        metrics = judge(model, self.base.tokenizer, self.spec, self.held_out)
        if metrics.reward is not None and metrics.reward_name is not None:
            return metrics.reward_name.replace("_", " "), metrics.reward
        name, value = metrics.likelihood
        return name.replace("_", "-"), value

    def accuracy(self, scorer: Scorer) -> float:
        return pair_accuracy(scorer, self.render, self.held_out)


_TAUGHT: Final[dict[DataKind, PreTrainedModel]] = {}


def _taught(kind: DataKind, trial: Trial) -> PreTrainedModel:
    """The model of a trial, trained once for each kind of data."""
    if kind not in _TAUGHT:
        _TAUGHT[kind] = trial.train(Onlooker(trial.folder)).applied.merge()
    return _TAUGHT[kind]


def prove(cell: Cell, folder: Path) -> Evidence:
    """Try a cell, with `folder` for what it saves."""
    trial = Trial(cell, folder)
    start = _tensors(apply(trial.build(), trial.update, SEED).model)
    onlooker = Onlooker(folder, save_after=trial.steps - REPEATED)
    trained = trial.train(onlooker)
    end = _tensors(trained.applied.model)
    moved = {name for name in end if any(not torch.equal(at[name], start[name]) for at in (onlooker.first, end))}
    declared = set(trained.applied.trainable())
    torch.randn(3)  # another process has drawn other random numbers
    resumed = _tensors(trial.train(Onlooker(folder), checkpoint.load(folder)).applied.model)
    look = _scorer_seen if trial.scores_pairs else _policy_seen
    metric, untuned, reached, reloaded = look(trial, trained, folder / "saved")
    return Evidence(
        program=cell.recipe,
        update=cell.update,
        edit=cell.edit,
        base=trial.base.entry.name,
        data=cell.kind,
        metric=metric,
        untuned=untuned,
        trained=reached,
        moved=len(moved),
        still=len(end) - len(moved),
        as_declared=moved == declared,
        reloaded=reloaded,
        resumed=all(torch.equal(tensor, end[name]) for name, tensor in resumed.items()),
    )


Seen = tuple[str, float, float, float]  # the metric, and its value untuned, trained, and saved and loaded again


def _policy_seen(trial: Trial, trained: Trained, folder: Path) -> Seen:
    judged = trained.judged()
    metric, untuned = _untuned(trial.design.recipe, trial.pristine)
    return metric, untuned, trial.score(judged)[1], trial.score(_reloaded(trial, trained, judged, folder))[1]


def _reloaded(trial: Trial, trained: Trained, judged: CausalModel, folder: Path) -> CausalModel:
    """The trained model as plain libraries load it: transformers, or PEFT where the adapter is all there is."""
    if isinstance(judged, PeftModelForCausalLM):
        trained.applied.save_adapter(folder)
        return PeftModelForCausalLM.from_pretrained(judged.get_base_model(), folder).eval()
    judged.save_pretrained(folder)
    load: Callable[..., Any] = (AutoModelForMaskedLM if trial.encoder else AutoModelForCausalLM).from_pretrained
    loaded: PreTrainedModel = load(folder).eval()
    return loaded


@cache
def _untuned(recipe: str, model: PreTrainedModel) -> tuple[str, float]:
    """The score of the model that all cells of a recipe start from."""
    cell = next(cell for cell in cells() if cell.recipe == recipe)
    return Trial(cell, Path()).score(model)


def _scorer_seen(trial: Trial, trained: Trained, folder: Path) -> Seen:
    assert trained.scorer is not None
    trained.scorer.save(folder, trial.base.tokenizer)
    loaded = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    keep_layout(loaded, layout_of(trial.pristine))
    fresh = objective(RewardModel()).parameters(trial.pristine, SEED)[HEAD].detach()
    scorers = [
        Scorer(model=trial.pristine, head_1D=fresh),
        trained.scorer,
        Scorer(model=loaded, head_1D=loaded.score.weight.detach()),
    ]
    untuned, reached, reloaded = map(trial.accuracy, scorers)
    return "pair accuracy", untuned, reached, reloaded


def _tensors(model: CausalModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in itertools.chain(model.named_parameters(), model.named_buffers())}


def _key(seen: Evidence) -> tuple[str, str, str]:
    return seen.program, seen.update, seen.edit


def main() -> int:
    parser = argparse.ArgumentParser(description="Try every cell of the design space and record what is seen.")
    parser.add_argument(
        "--only", metavar="TEXT", help="try the cells whose name holds this, and keep the others' record"
    )
    only = parser.parse_args().only
    found, before = [], {} if only is None else {_key(seen): seen for seen in verified.recorded()}
    for cell in cells():
        if only and only not in str(cell):
            kept = before.get((cell.recipe, cell.update, cell.edit))
            found += [kept] if kept else []
            continue
        with tempfile.TemporaryDirectory() as folder:
            seen = prove(cell, Path(folder))
        found.append(seen)
        verdict = "ok" if seen.passes else seen
        print(f"{cell!s:32}{seen.metric:22}{seen.untuned:10.4g} → {seen.trained:<10.4g}{verdict}", flush=True)
    verified.write(tuple(found))
    return 0 if all(seen.passes for seen in found) else 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
