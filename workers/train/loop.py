"""The one training loop. Every trial of every algorithm and update goes through here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from transformers import PreTrainedModel

from luthier.design import Design, RewardModel, Stage
from luthier.errors import Infeasible
from workers.train import updates
from workers.train.algorithms import Example, objective
from workers.train.checkpoint import Checkpoint, Position
from workers.train.forward import CausalModel
from workers.train.reward_model import HEAD, Scored, Scorer, restored
from workers.train.rollouts.play import World
from workers.train.stage_trainer import Member, Pack, StepReport
from workers.train.updates import Applied

ExamplesOf = Callable[[Stage], Sequence[Example]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A trial between two steps. `share` of the whole training is done; before the last step it was `before`.

    `next_stage` says that the step was its stage's last and that another stage follows. In a reward model's stage
    `scorer` is what is trained, and `model` is its own copy of the policy.
    """

    position: Position
    before: float
    share: float
    next_stage: bool
    report: StepReport
    model: CausalModel
    scorer: Scorer | None
    checkpoint: Callable[[], Checkpoint]


class Watch(Protocol):
    """Looks on between steps: sends curves, saves checkpoints, scores rungs. Raises to end the training."""

    def after_step(self, progress: Progress) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What is left when all stages are done. `whole_base` says that the update stands on the base as registered;
    `scorer` is the reward model, where one was trained on the way."""

    applied: Applied
    whole_base: bool
    tokens: int
    scorer: Scorer | None = None

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
    world: World | None = None,
    resume: Checkpoint | None = None,
) -> Trained:
    """Train a design's stages on `model` (which is used up), from the start or from a checkpoint.

    Each stage starts from the last one's weights. A stage with the same update as the one before goes on with the same
    parameters; otherwise the earlier update is merged into the model first. `world` is where reward maximisers find
    their rewards; a reward model is trained on a copy of the merged model and gives the rewards from then on. Raises
    TrialFailed when training diverges and Infeasible when memory runs out.
    """
    try:
        return _train(model, design, examples_of, seed=seed, watch=watch, world=world, resume=resume)
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
    resume: Checkpoint | None,
) -> Trained:
    model.eval()  # no dropout: a resumed trial has to draw what it would have drawn, and a reference must not waver
    first = resume.position.stage if resume else 0
    tokens = resume.position.tokens if resume else 0
    carried = resume.part("carried") if resume else {}
    if carried:
        model.load_state_dict(carried)
    scorer = restored(copy.deepcopy(model), trained) if resume and (trained := resume.part("scorer")) else None
    applied: Applied | None = None
    shares = _shares(design, examples_of)
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
        member = Member(
            applied=learning,
            objective=objective(stage.algorithm, _rewarded(world, scorer)),
            examples=examples_of(stage),
            optimiser=stage.optimiser,
            seed=seed,
        )
        if resume and index == first:
            member.restore(resume.position.step, resume.tensors)
        else:
            member.keep_reference()
        kept = _kept(carried, scorer)
        watcher = _Watcher(watch, index, len(shares), tokens, sum(shares[:index]), shares[index], kept)
        run(Pack((member,)), watcher)
        tokens = watcher.tokens
        if rewarding:
            scorer = Scorer(model=learning.merge(), head_1D=member.own[HEAD].detach())
    assert applied is not None, "a design without stages that change the policy is not trained"
    whole_base = not carried and not design.architecture.edited
    return Trained(applied=applied, whole_base=whole_base, tokens=tokens, scorer=scorer)


def _rewarded(world: World | None, scorer: Scorer | None) -> World | None:
    """The world with a reward model's scores for rewards, where there is one."""
    if world is None or scorer is None:
        return world
    scored = Scored(scorer, world.renderer)
    return replace(world, begin=scored.begin, rewards=scored.rewards)


def _kept(carried: dict[str, torch.Tensor], scorer: Scorer | None) -> dict[str, torch.Tensor]:
    """What a checkpoint holds beside the stage's own state, by name."""
    trained = scorer.tensors() if scorer else {}
    return {f"carried.{name}": t for name, t in carried.items()} | {f"scorer.{name}": t for name, t in trained.items()}


def _shares(design: Design, examples_of: ExamplesOf) -> list[float]:
    """The part of the whole training that each stage is, by rows trained on; a reward model's is no part of it, since
    it leaves the policy as it is."""
    rows = [
        0.0 if isinstance(stage.algorithm, RewardModel) else len(examples_of(stage)) * stage.optimiser.epochs
        for stage in design.stages
    ]
    return [count / max(sum(rows), 1e-9) for count in rows]


class _Watcher:
    """Turns a member's steps into the trial's progress."""

    def __init__(
        self,
        watch: Watch,
        stage: int,
        stages: int,
        tokens: int,
        before: float,
        share: float,
        kept: dict[str, torch.Tensor],
    ) -> None:
        self.watch, self.stage, self.stages, self.tokens, self.kept = watch, stage, stages, tokens, kept
        self.before, self.share = before, share

    def __call__(self, member: Member, report: StepReport) -> None:
        self.tokens += report.tokens
        position = Position(stage=self.stage, step=member.step, tokens=self.tokens)
        progress = Progress(
            position=position,
            before=self.before + self.share * (member.step - 1) / member.steps,
            share=self.before + self.share * member.step / member.steps,
            next_stage=member.done and self.stage + 1 < self.stages,
            report=report,
            model=member.applied.model,
            scorer=Scorer(model=member.applied.model, head_1D=member.own[HEAD]) if HEAD in member.own else None,
            checkpoint=lambda: Checkpoint(
                position=position,
                tensors=member.state() | self.kept,
            ),
        )
        self.watch.after_step(progress)
