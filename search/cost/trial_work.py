"""What a trial does, in numbers that do not depend on the machine: passes, tokens, FLOPs, and bytes held at once.

workload.py has what a job asks of every trial, passes.py the arithmetic of passes, resident.py that of memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from luthier.design import Architecture, Design, Stage
from luthier.models.base_model import ModelFacts
from luthier.task import DataKind, rung_rows
from luthier.trial import RUNG_GENERATIONS, RUNG_WINDOWS, RUNGS
from luthier.updates import Update, VirtualTokens
from search.cost.flops import TOKEN_CAP, Kind, backward, decoding, forward, likelihood
from search.cost.memory import FLOAT, Memory, kept_once, kept_per_token, sampling_bytes, scoring_bytes
from search.cost.parameters import moving, shape
from search.methods import ALGORITHM_OF, UPDATE_OF, StageGoal
from search.methods.amounts import Moving, Passes, Shape, Work, Workload

SAMPLING_BATCH, GENERATION_BATCH = 64, 8  # answers drawn at once in training, and by the judge
NEARLY: Final = 1e-9
FOUR_BITS: Final = 0.14  # of float32, with the scales of NF4 (Dettmers et al. 2023)
MOMENTS: Final = 2  # of AdamW, for each number that moves
INFLUENCE_ROWS, INFLUENCE_TOKENS = 16, 256  # that layers are weighed on before some are cut
STEP_SPREAD: Final = 1.5  # standard deviations by which the longest step of a training exceeds the mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole trial. `phases` are the moments that may hold most."""

    training: Work
    rollouts: Work  # a part of the training
    judging: Work
    other: Work
    phases: tuple[Memory, ...]
    tokens: float  # trained on
    drawn: float  # sampled in training
    steps: int
    judged_rows: int
    parameters: int
    trainable: int
    inference: Work  # for a token, drawn alone


def plan(facts: ModelFacts, design: Design, job: Workload, kind: Kind) -> Plan:
    """All that a trial of the design does from its lease to its export, on a device of this kind."""
    model = shape(facts, design.architecture)
    base = shape(facts, design.architecture.model_copy(update={"layers": None, "kv_heads": None}))
    taught = job.teachers.get(design.teacher or "")
    teacher = None if taught is None else shape(taught, Architecture(base=design.teacher or ""))
    stages = [_Stage(model, stage, job, kind, design, teacher) for stage in design.stages]
    judging, scoring, sampling, judged = _judging(model, job, kind, _in_front(design))
    resting = _resting(base, model, stages, kind)
    if teacher is not None:
        resting = resting._replace(copies=resting.copies + FLOAT * teacher.parameters)
    for number, stage in enumerate(design.stages[:-1]):
        if stage.algorithm.kind != "reward_model" and design.stages[number + 1].update == stage.update:
            continue
        resting = resting._replace(copies=resting.copies + (FLOAT * model.parameters if kind == "cpu" else 0))
    phases = [stage.training_memory(resting) for stage in stages]
    phases += [stage.sampling_memory(resting) for stage in stages if stage.group]
    rungs = _rungs(stages)
    moments = max((MOMENTS * FLOAT * stage.moving.numbers for stage in stages), default=0)
    at_rungs = min(rung_rows(job.kind), job.validation, job.max_rows)
    part = min(1.0, at_rungs / max(1, min(max(job.validation, job.test), job.max_rows)))
    if rungs:
        phases.append(resting._replace(scoring=scoring * part, sampling=sampling, optimiser=float(moments)))
    phases.append(resting._replace(scoring=scoring, sampling=sampling))
    if stages:
        phases.append(resting._replace(copies=resting.copies + (FLOAT * model.parameters if kind == "cpu" else 0)))
    few = _scored(model, job, at_rungs, kind, RUNG_GENERATIONS, RUNG_WINDOWS, _in_front(design))
    moved = max((stage.moving.numbers for stage in stages), default=0)
    return Plan(
        training=Work().plus(*(stage.training() for stage in stages)),
        rollouts=Work().plus(*(stage.rollouts() for stage in stages)),
        judging=judging.plus(few.times(rungs)),
        other=_other(base, model, design, stages, job),
        phases=tuple(phases),
        tokens=sum(stage.tokens for stage in stages),
        drawn=sum(stage.drawn for stage in stages),
        steps=sum(stage.steps for stage in stages),
        judged_rows=judged + rungs * at_rungs,
        parameters=model.parameters + max((stage.moving.added for stage in stages), default=0),
        trainable=moved,
        inference=decoding(model, None, 1, 0.0, 1, batch=1, adapted=False),
    )


class _Stage:
    """One stage of a design, in amounts."""

    def __init__(
        self, model: Shape, stage: Stage, job: Workload, kind: Kind, design: Design, teacher: Shape | None
    ) -> None:
        self.model, self.stage, self.job, self.kind = model, stage, job, kind
        self.algorithm, self.update = stage.algorithm, stage.update
        self.teacher = teacher if ALGORITHM_OF[stage.algorithm.kind].needs_teacher else None
        self.spec, self.cost = ALGORITHM_OF[stage.algorithm.kind], UPDATE_OF[stage.update.kind].cost
        self.moving: Moving = moving(model, stage.update)
        self.examples = self.spec.examples(stage.algorithm, job)
        self.group = self.spec.rollouts(stage.algorithm)
        passes = max(1, round(self.examples.number * stage.optimiser.epochs))
        self.batch = min(stage.optimiser.batch_size, passes)
        self.steps = math.ceil(passes / stage.optimiser.batch_size)
        self.seen = float(passes)  # examples, each as often as it is seen
        self.tokens = self.seen * self.examples.tokens
        self.drawn = self.seen * self.group * self.job.max_new_tokens
        self.edited = design.architecture.window

    @property
    def scored(self) -> bool:
        """Whether a reward model is trained here, which has a head of its own in place of the model's."""
        return self.spec.goal is StageGoal.SCORES

    @property
    def copied(self) -> bool:
        """Whether the trained weights are kept as they were at first."""
        return self.spec.keeps_start(self.algorithm)

    @property
    def per_pass(self) -> int:
        """Examples in one forward pass."""
        return max(1, min(self.batch, int(TOKEN_CAP[self.kind] // max(1.0, self.examples.tokens))))

    def training(self) -> Work:
        """All steps, with what is drawn and compared for them."""
        examples, passes = self.examples, self.steps * math.ceil(self.batch / self.per_pass)
        learnt = Passes(
            passes=passes,
            sequences=self.seen * examples.sequences,
            tokens=self.tokens + self.seen * examples.sequences * _virtual(self.update),
            targets=0.0 if self.scored else self.seen * examples.targets,
            length=examples.tokens / examples.sequences,
        )
        compared = self.spec.reference_passes(self.algorithm, self.stage.optimiser.epochs)
        work = forward(self.model, learnt, self.update, self.moving).plus(
            backward(self.model, learnt, self.update, self.moving),
            forward(self.model, learnt, self.update, self.moving).times(compared),
            self._stepping(),
        )
        if self.teacher is not None:
            work = work.plus(forward(self.teacher, learnt, None, None))
        return work.plus(self.rollouts())

    def _stepping(self) -> Work:
        numbers, tensors = self.cost.optimiser
        return Work(
            optimised=self.steps * numbers * self.moving.numbers, tensors=self.steps * tensors * self.moving.tensors
        )

    def rollouts(self) -> Work:
        """Answers drawn, `group` for each prompt of a step."""
        if not self.group:
            return Work()
        alone = isinstance(self.update, VirtualTokens)
        size = 1 if alone else SAMPLING_BATCH
        prompts = self.seen * self.group
        per_step = max(1, round(prompts / self.steps))
        batches = self.steps * math.ceil(per_step / size)
        return decoding(
            self.model,
            self.update,
            batches,
            self.job.prompt,
            self.job.max_new_tokens,
            batch=prompts / batches,
            adapted=True,
        )

    def training_memory(self, resting: Memory) -> Memory:
        examples, group = self.examples, self.per_pass
        spread = (
            STEP_SPREAD * self.job.spread * math.sqrt(group * examples.sequences) if examples.number > group else 0.0
        )
        most = group * examples.tokens + spread
        tokens = min(most, max(TOKEN_CAP[self.kind], examples.tokens)) + group * examples.sequences * _virtual(
            self.update
        )
        targets = 0.0 if self.scored else tokens * examples.targets / max(1.0, examples.tokens)
        moved = float(FLOAT * self.moving.numbers)
        return resting._replace(
            copies=resting.copies + (moved if self.copied else 0.0),
            gradients=moved,
            optimiser=MOMENTS * moved,
            activations=tokens
            * kept_per_token(self.model, self.update, self.moving, examples.tokens / examples.sequences, self.kind)
            + kept_once(self.update, self.moving),
            logits=targets * self.model.facts.vocab_size * FLOAT,
        )

    def sampling_memory(self, resting: Memory) -> Memory:
        size = 1 if isinstance(self.update, VirtualTokens) else min(SAMPLING_BATCH, self.batch * self.group)
        moved = float(FLOAT * self.moving.numbers)
        return resting._replace(
            copies=resting.copies + (moved if self.copied else 0.0),
            optimiser=MOMENTS * moved,
            sampling=sampling_bytes(self.model, size, self.job.prompt, self.job.max_new_tokens, self.kind),
        )


def _virtual(update: Update) -> int:
    return update.tokens if isinstance(update, VirtualTokens) else 0


def _in_front(design: Design) -> bool:
    return any(isinstance(stage.update, VirtualTokens) for stage in design.stages)


def _rungs(stages: Sequence[_Stage]) -> int:
    """How often a few rows are scored on the way: at rungs, those at one step together, and after stages."""
    steps = sum(stage.steps for stage in stages)
    crossed = {math.ceil(share * steps - NEARLY) for share in RUNGS} - {steps}
    return len(crossed) + max(0, len(stages) - 1)


def _scored(model: Shape, job: Workload, rows: int, kind: Kind, generations: int, windows: int, in_front: bool) -> Work:
    """What the judge does with so many rows of a split."""
    whole, target = job.prompt + job.target, job.target
    if model.facts.family == "encoder":
        found = rows * math.ceil(target / job.window)
        masked = min(found, windows) * job.pseudo_positions
        return likelihood(model, masked, 1, min(target, job.window), 1, kind)
    desired = job.desirable if job.kind is DataKind.UNPAIRED else 1.0
    work = likelihood(model, rows * desired, 1, whole, target, kind)
    match job.kind:
        case DataKind.PREFERENCE:
            return work.plus(likelihood(model, rows, 2, 2 * whole, 2 * target, kind))
        case DataKind.UNPAIRED:
            return work.plus(likelihood(model, rows, 1, whole, target, kind))
        case _:
            pass
    if not job.graded:
        return work
    prompts = min(rows, generations)
    batches = math.ceil(prompts / (1 if in_front else GENERATION_BATCH))
    batch = prompts / max(1, batches)
    return work.plus(decoding(model, None, batches, job.prompt, job.answer, batch=batch, adapted=False))


def _judging(model: Shape, job: Workload, kind: Kind, in_front: bool) -> tuple[Work, float, float, int]:
    """The scores on validation and test rows: the work, the bytes that a pass and the answers hold, and the rows."""
    splits = [min(split, job.max_rows) for split in (job.validation, job.test)]
    works = [_scored(model, job, rows, kind, job.max_generations, job.pseudo_windows, in_front) for rows in splits]
    rows, length = max(splits), job.prompt + job.target
    if model.facts.family == "encoder":
        window = max(1.0, min(length, job.window))
        tokens = min(float(TOKEN_CAP[kind]), rows * job.pseudo_positions * window)
        targets = tokens / window
    else:
        tokens = min(float(TOKEN_CAP[kind]), rows * (2 if job.kind is DataKind.PREFERENCE else 1) * length)
        targets = tokens * job.target / max(1.0, length)
    size = 1 if in_front else min(rows, GENERATION_BATCH)
    sampling = sampling_bytes(model, size, job.prompt, job.max_new_tokens, kind) if job.graded else 0.0
    return Work().plus(*works), scoring_bytes(model, tokens, targets), sampling, sum(splits)


def _resting(base: Shape, model: Shape, stages: Sequence[_Stage], kind: Kind) -> Memory:
    """What is there all the time: on a CPU the base as registered stays in the same memory."""
    added = max((stage.moving.added for stage in stages), default=0)
    numbers = model.parameters + added + (base.parameters if kind == "cpu" else 0)
    if any(UPDATE_OF[stage.update.kind].four_bit for stage in stages):
        numbers -= round((1 - FOUR_BITS) * sum(m.numbers * count for m, count in model.linear))
    rewards = sum(stage.scored for stage in stages)
    copies = 2 * rewards * model.parameters if kind == "cpu" else rewards * model.parameters
    return Memory(process=1.0, weights=float(FLOAT * numbers), copies=float(FLOAT * copies))


def _other(base: Shape, model: Shape, design: Design, stages: Sequence[_Stage], job: Workload) -> Work:
    """Making the model, putting updates on it, taking them off again, and writing the result."""
    made = float(model.parameters)
    if design.architecture.edited:
        made *= 3  # drawn at random before it is filled
    modules = 0.0
    merged = 0.0
    flops = 0.0
    for index, stage in enumerate(stages):
        if index and stage.update == stages[index - 1].update and not stage.scored:
            continue
        modules += stage.moving.count
        merged += stage.moving.weights
        flops += stage.cost.applying(stage.update, stage.moving)
    if design.architecture.depth_rule == "block_influence":
        tokens = INFLUENCE_ROWS * min(float(INFLUENCE_TOKENS), job.prompt + job.target)
        done = Passes(passes=INFLUENCE_ROWS, sequences=INFLUENCE_ROWS, tokens=tokens, targets=0, length=tokens / 16)
        return forward(base, done, None, None).plus(
            Work(flops=flops, copied=2 * made + merged, modules=modules, leases=1.0)
        )
    return Work(flops=flops, copied=2 * made + merged, modules=modules, leases=1.0)
