"""The one training loop. Every trial of every algorithm and update goes through here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import PreTrainedModel

from luthier.design import Design, Stage
from luthier.errors import Infeasible
from workers.train import updates
from workers.train.algorithms import Example, objective
from workers.train.checkpoint import Checkpoint, Position
from workers.train.pack import Member, Pack, StepReport
from workers.train.updates import Applied
from workers.train.updates.applied import CausalModel

ExamplesOf = Callable[[Stage], Sequence[Example]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A trial between two steps. `share` of the whole training is done; before the last step it was `before`."""

    position: Position
    before: float
    share: float
    report: StepReport
    model: CausalModel
    checkpoint: Callable[[], Checkpoint]


class Watch(Protocol):
    """Looks on between steps: sends curves, saves checkpoints, scores rungs. Raises to end the training."""

    def after_step(self, progress: Progress) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What is left when all stages are done. `whole_base` says that the update stands on the base as registered."""

    applied: Applied
    whole_base: bool
    tokens: int

    def judged(self) -> CausalModel:
        """The model that is judged and exported: the plain one that the update makes, where it can be merged."""
        return self.applied.merge() if self.applied.mergeable else self.applied.model


def run(pack: Pack, after_step: Callable[[Member, StepReport], None]) -> None:
    """Step the members in turn until all are done."""
    while not pack.done:
        for member in pack.members:
            if not member.done:
                after_step(member, member.advance())


def train(
    model: PreTrainedModel,
    design: Design,
    examples_of: ExamplesOf,
    *,
    seed: int,
    watch: Watch,
    resume: Checkpoint | None = None,
) -> Trained:
    """Train a design's stages on `model` (which is used up), from the start or from a checkpoint.

    Each stage starts from the last one's weights. A stage with the same update as the one before goes on with the same
    parameters; otherwise the earlier update is merged into the model first. Raises TrialFailed when training diverges
    and Infeasible when memory runs out.
    """
    try:
        return _train(model, design, examples_of, seed=seed, watch=watch, resume=resume)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise Infeasible(f"out of memory on {model.device}: {str(error).splitlines()[0]}") from error


def _train(
    model: PreTrainedModel,
    design: Design,
    examples_of: ExamplesOf,
    *,
    seed: int,
    watch: Watch,
    resume: Checkpoint | None,
) -> Trained:
    model.eval()  # no dropout: a resumed trial has to draw what it would have drawn, and a reference must not waver
    first = resume.position.stage if resume else 0
    tokens = resume.position.tokens if resume else 0
    carried = resume.part("carried") if resume else {}
    if carried:
        model.load_state_dict(carried)
    applied: Applied | None = None
    shares = _shares(design, examples_of)
    for index, stage in enumerate(design.stages[first:], first):
        if applied is not None and stage.update != design.stages[index - 1].update:
            model = applied.merge()
            carried = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            applied = None
        applied = applied or updates.apply(model, stage.update, seed)
        member = Member(
            applied=applied,
            objective=objective(stage.algorithm),
            examples=examples_of(stage),
            optimiser=stage.optimiser,
            seed=seed,
        )
        if resume and index == first:
            member.restore(resume.position.step, resume.tensors)
        else:
            member.fix_reference()
        watcher = _Watcher(watch, index, tokens, sum(shares[:index]), shares[index], carried)
        run(Pack((member,)), watcher)
        tokens = watcher.tokens
    assert applied is not None, "a design without stages is not trained"
    return Trained(applied=applied, whole_base=not carried and not design.architecture.edited, tokens=tokens)


def _shares(design: Design, examples_of: ExamplesOf) -> list[float]:
    """The part of the whole training that each stage is, by rows trained on."""
    rows = [len(examples_of(stage)) * stage.optimiser.epochs for stage in design.stages]
    return [count / max(sum(rows), 1e-9) for count in rows]


class _Watcher:
    """Turns a member's steps into the trial's progress."""

    def __init__(
        self, watch: Watch, stage: int, tokens: int, before: float, share: float, carried: dict[str, torch.Tensor]
    ) -> None:
        self.watch, self.stage, self.tokens, self.carried = watch, stage, tokens, carried
        self.before, self.share = before, share

    def __call__(self, member: Member, report: StepReport) -> None:
        self.tokens += report.tokens
        position = Position(stage=self.stage, step=member.step, tokens=self.tokens)
        progress = Progress(
            position=position,
            before=self.before + self.share * (member.step - 1) / member.steps,
            share=self.before + self.share * member.step / member.steps,
            report=report,
            model=member.applied.model,
            checkpoint=lambda: Checkpoint(
                position=position,
                tensors=member.state() | {f"carried.{name}": t for name, t in self.carried.items()},
            ),
        )
        self.watch.after_step(progress)
