"""The training loop. Every trial, whatever its algorithm and update, is trained here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from transformers import PreTrainedModel

from luthier.algorithms import RewardModel
from luthier.design import Design, Stage
from luthier.errors import Infeasible
from luthier.trial import StageEnd, StageLength
from workers.train import updates
from workers.train.algorithms import Context, Example, Teacher, objective
from workers.train.checkpoint import Checkpoint, Position
from workers.train.forward import CausalModel
from workers.train.reward_model import HEAD, Scored, Scorer, restored
from workers.train.rollouts.play import World
from workers.train.stage_trainer import ENDS, StageTrainer, StepReport
from workers.train.updates import Applied

ExamplesOf = Callable[[Stage], Sequence[Example]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A trial after an optimiser step.

    before, share  share of the whole training that was done before the step, and is done now
    rows           training rows that the stage has read, over all epochs
    last_step      whether the step was its stage's last
    last_stage     whether no other stage follows
    model          the model in training; in a reward model's stage its own copy of the policy
    result         gives the model, for a while, the weights that the stage would end with if it ended now
    scorer         the reward model in training, in its stage only
    keep_best      makes the result of this moment the stage's result; None where only the end has a result
    stop           ends the stage after this step, for a reason
    checkpoint     makes a checkpoint of this moment
    """

    position: Position
    before: float
    share: float
    rows: int
    last_step: bool
    last_stage: bool
    report: StepReport
    model: CausalModel
    result: Callable[[], AbstractContextManager[None]]
    scorer: Scorer | None
    keep_best: Callable[[], None] | None
    stop: Callable[[StageEnd], None]
    checkpoint: Callable[[], Checkpoint]


class Watch(Protocol):
    """Observes each step: records curves, saves checkpoints, scores rungs. It raises to stop the training."""

    def after_step(self, progress: Progress) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The result of all stages.

    whole_base  whether the update applies to the base model as registered, not to an edited or merged one
    lengths     how long each stage was trained
    tokens      tokens trained on, over all stages and leases
    scorer      the reward model, if a stage trained one
    """

    applied: Applied
    lengths: Sequence[StageLength]
    whole_base: bool
    tokens: int
    scorer: Scorer | None = None

    def judged(self) -> CausalModel:
        """Return the model to judge and export: with the update merged where it can be."""
        return self.applied.merge() if self.applied.mergeable else self.applied.model


def train(
    model: PreTrainedModel,
    design: Design,
    examples_of: ExamplesOf,
    *,
    seed: int,
    watch: Watch,
    world: World | None = None,
    teacher: Teacher | None = None,
    resume: Checkpoint | None = None,
) -> Trained:
    """Train a design's stages on `model` in place, from the start or from a checkpoint.

    Each stage starts from the last one's weights. A stage with the same update as the one before continues with the
    same parameters; otherwise the earlier update is merged into the model first. `world` gives online RL its rewards,
    `teacher` is the model to distil. A reward model is trained on a copy of the merged model; its scores are the
    rewards of later stages.

    Raises TrialFailed if training diverges, and Infeasible if memory runs out.
    """
    try:
        return _train(model, design, examples_of, seed=seed, watch=watch, world=world, teacher=teacher, resume=resume)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise Infeasible(f"out of memory on {model.device}: {str(error).splitlines()[0]}") from error


def _train(
    model: PreTrainedModel,
    design: Design,
    examples_of: ExamplesOf,
    *,
    seed: int,
    watch: Watch,
    world: World | None,
    teacher: Teacher | None,
    resume: Checkpoint | None,
) -> Trained:
    model.eval()  # no dropout: a resumed trial must repeat its random numbers, and a reference must be deterministic
    first = resume.position.stage if resume else 0
    tokens = resume.position.tokens if resume else 0
    carried = resume.part("carried") if resume else {}  # the whole model, once an update was merged into it
    if carried:
        model.load_state_dict(carried)
    scorer = restored(copy.deepcopy(model), tensors) if resume and (tensors := resume.part("scorer")) else None
    applied: Applied | None = None
    shares = _shares(design, examples_of)
    lengths = _lengths(resume)
    for index, stage in enumerate(design.stages[first:], first):
        rewarding = isinstance(stage.algorithm, RewardModel)
        if applied is not None and (rewarding or stage.update != design.stages[index - 1].update):
            model = applied.merge()
            carried = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            applied = None
        if rewarding:
            learning = updates.apply(copy.deepcopy(model), stage.update, seed)
        else:
            learning = applied = applied or updates.apply(model, stage.update, seed)
        trainer = StageTrainer(
            applied=learning,
            objective=objective(stage.algorithm, Context(world=_rewarded(world, scorer), teacher=teacher)),
            examples=examples_of(stage),
            optimiser=stage.optimiser,
            seed=seed,
        )
        if resume and index == first:
            trainer.restore(resume.position.step, resume.tensors)
        else:
            trainer.keep_reference()
        earlier = {f"carried.{name}": tensor for name, tensor in carried.items()}
        if lengths:
            earlier["lengths"] = torch.tensor(
                [[one.steps, one.epochs, one.trained, ENDS.index(one.ended)] for one in lengths], dtype=torch.float64
            )
        if scorer:
            earlier |= {f"scorer.{name}": tensor for name, tensor in scorer.tensors().items()}
        while not trainer.done:
            report = trainer.advance()
            tokens += report.tokens
            watch.after_step(_progress(trainer, report, index, tokens, shares, earlier))
        lengths.append(trainer.finish())
        if rewarding:
            scorer = Scorer(model=learning.merge(), head_1D=trainer.head[HEAD].detach())
    assert applied is not None, "a design without stages that change the policy is not trained"
    whole_base = not carried and not design.architecture.edited
    return Trained(applied=applied, lengths=lengths, whole_base=whole_base, tokens=tokens, scorer=scorer)


def _lengths(resume: Checkpoint | None) -> list[StageLength]:
    """Return the lengths of the stages that were finished before the checkpoint."""
    if resume is None or "lengths" not in resume.tensors:
        return []
    # Checkpoints of earlier versions do not say why a stage ended.
    rows = ((*row, 0.0)[:4] for row in resume.tensors["lengths"].tolist())
    return [
        StageLength(steps=round(steps), epochs=epochs, trained=round(trained), ended=ENDS[round(ended)])
        for steps, epochs, trained, ended in rows
    ]


def _rewarded(world: World | None, scorer: Scorer | None) -> World | None:
    """Return the world, with the reward model's scores as rewards if there is one."""
    if world is None or scorer is None:
        return world
    scored = Scored(scorer, world.renderer)
    return replace(world, begin=scored.begin, rewards=scored.rewards)


def _shares(design: Design, examples_of: ExamplesOf) -> list[float]:
    """Return each stage's share of the training, by rows; zero for a reward model, which does not train the policy."""
    rows = [
        0.0 if isinstance(stage.algorithm, RewardModel) else len(examples_of(stage)) * stage.optimiser.epochs
        for stage in design.stages
    ]
    return [count / max(sum(rows), 1e-9) for count in rows]


def _progress(
    trainer: StageTrainer,
    report: StepReport,
    stage: int,
    tokens: int,
    shares: Sequence[float],
    earlier: dict[str, torch.Tensor],
) -> Progress:
    """Return the trial's progress after a step. `earlier` is what a checkpoint holds of earlier stages."""
    position = Position(stage=stage, step=trainer.step, tokens=tokens)
    before = sum(shares[:stage])
    return Progress(
        position=position,
        before=before + shares[stage] * (trainer.step - 1) / trainer.steps,
        share=before + shares[stage] * trainer.step / trainer.steps,
        rows=min(trainer.step * trainer.optimiser.batch_size, len(trainer.order)),
        last_step=trainer.done,
        last_stage=stage + 1 == len(shares),
        report=report,
        model=trainer.model,
        result=trainer.result,
        scorer=Scorer(model=trainer.model, head_1D=trainer.head[HEAD]) if HEAD in trainer.head else None,
        keep_best=None if trainer.average is None else trainer.keep_best,
        stop=trainer.stop,
        checkpoint=lambda: Checkpoint(position=position, tensors=trainer.state() | earlier),
    )
