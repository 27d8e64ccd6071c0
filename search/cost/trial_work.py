"""The work of one trial in machine-independent amounts: passes, tokens, FLOPs, and bytes of memory.

`workload` describes the job, `flops` counts the work of passes through a model, and `memory` counts bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from luthier.design import Architecture, Design, Stage
from luthier.models.base_model import ModelFacts
from luthier.task import DataKind, Objective, rung_rows
from luthier.trial import RUNG_GENERATIONS, RUNG_WINDOWS, generation_batch
from luthier.updates import Update, VirtualTokens
from search.cost.flops import TOKEN_CAP, Kind, backward, decoding, forward, likelihood
from search.cost.length import expected_epochs, moments, rung_shares
from search.cost.memory import FLOAT, Memory, kept_once, kept_per_token, sampling_bytes, scoring_bytes
from search.cost.parameters import moving, shape
from search.methods import ALGORITHM_OF, UPDATE_OF, StageGoal
from search.methods.amounts import Moving, Passes, Shape, Work, Workload

SAMPLING_BATCH: Final = 64  # answers generated at once in training
ROUNDING: Final = 1e-9  # tolerance for a rung that falls exactly on a step
FOUR_BITS: Final = 0.14  # size relative to float32, with the scales of NF4 (Dettmers et al. 2023)
MOMENTS: Final = 2  # of AdamW, for each trainable parameter
INFLUENCE_ROWS, INFLUENCE_TOKENS = 16, 256  # on which block influence is measured before layers are removed
STEP_SPREAD: Final = 1.5  # standard deviations by which the longest training step exceeds the mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The work of a whole trial. `phases` are the moments at which memory use may peak."""

    training: Work
    rollouts: Work  # part of `training`
    judging: Work
    other: Work
    phases: tuple[Memory, ...]
    tokens: float  # trained on
    drawn: float  # tokens generated in training
    steps: int
    judged_rows: int
    parameters: int
    trainable: int
    inference: Work  # for one token generated without batching


def plan(facts: ModelFacts, design: Design, job: Workload, kind: Kind) -> Plan:
    """Return the work of a trial of this design on this kind of device, from its lease to its export."""
    model = shape(facts, design.architecture)
    base = shape(facts, design.architecture.model_copy(update={"layers": None, "kv_heads": None}))
    teacher_facts = job.teachers.get(design.teacher or "")
    teacher = None if teacher_facts is None else shape(teacher_facts, Architecture(base=design.teacher or ""))
    stages = [_Stage(model, stage, job, kind, teacher) for stage in design.stages]
    unbatched = any(isinstance(stage.update, VirtualTokens) for stage in design.stages)
    judging, scoring, sampling, judged_rows = _judging(model, job, kind, unbatched)
    constant = _constant(base, model, stages, kind)
    if teacher is not None:
        constant = constant._replace(copies=constant.copies + FLOAT * teacher.parameters)
    saved = FLOAT * model.parameters if kind == "cpu" else 0  # on a GPU, weights being saved are in host memory
    for stage, following in pairwise(design.stages):
        if stage.algorithm.kind == "reward_model" or following.update != stage.update:
            constant = constant._replace(copies=constant.copies + saved)
    phases = [stage.training_memory(constant) for stage in stages]
    phases += [stage.sampling_memory(constant) for stage in stages if stage.group]
    by_likelihood, by_reward = _moments(design, stages, job.objective)
    scorings = _scorings(design, stages) + by_reward
    trainable = max((stage.moving.numbers for stage in stages), default=0)
    rows_at_rungs = min(rung_rows(job.kind), job.validation, job.max_rows)
    share_at_rungs = min(1.0, rows_at_rungs / max(1, min(max(job.validation, job.test), job.max_rows)))
    if scorings + by_likelihood:
        phases.append(
            constant._replace(
                scoring=scoring * share_at_rungs,
                sampling=sampling,
                optimiser=max(stage.optimiser_bytes for stage in stages),
            )
        )
    phases.append(constant._replace(scoring=scoring, sampling=sampling))
    if stages:
        phases.append(constant._replace(copies=constant.copies + saved))
    few = (rows_at_rungs, kind, RUNG_GENERATIONS, RUNG_WINDOWS, unbatched)
    at_rung, at_moment = _scored(model, job, *few), _scored(model, job.model_copy(update={"graded": False}), *few)
    return Plan(
        training=Work().plus(*(stage.training() for stage in stages)),
        rollouts=Work().plus(*(stage.rollouts() for stage in stages)),
        judging=judging.plus(at_rung.times(scorings), at_moment.times(by_likelihood)),
        other=_other(base, model, design, stages, job),
        phases=tuple(phases),
        tokens=sum(stage.tokens for stage in stages),
        drawn=sum(stage.drawn for stage in stages),
        steps=sum(stage.steps for stage in stages),
        judged_rows=judged_rows + (scorings + by_likelihood) * rows_at_rungs,
        parameters=model.parameters + max((stage.moving.added for stage in stages), default=0),
        trainable=trainable,
        inference=decoding(model, None, 1, 0.0, 1, batch=1, adapted=False),
    )


class _Stage:
    """The work and memory of one stage of a design."""

    def __init__(self, model: Shape, stage: Stage, job: Workload, kind: Kind, teacher: Shape | None) -> None:
        self.model, self.stage, self.job, self.kind = model, stage, job, kind
        self.algorithm, self.update = stage.algorithm, stage.update
        self.teacher = teacher if ALGORITHM_OF[stage.algorithm.kind].needs_teacher else None
        self.spec, self.cost = ALGORITHM_OF[stage.algorithm.kind], UPDATE_OF[stage.update.kind].cost
        self.moving: Moving = moving(model, stage.update)
        self.examples = self.spec.examples(stage.algorithm, job)
        self.group = self.spec.rollouts(stage.algorithm)
        self.epochs = expected_epochs(stage.optimiser, round(self.examples.number))
        seen = max(1, round(self.examples.number * self.epochs))
        self.batch = min(stage.optimiser.batch_size, seen)
        self.steps = math.ceil(seen / stage.optimiser.batch_size)
        self.seen = float(seen)  # examples over all epochs
        self.tokens = self.seen * self.examples.tokens
        self.drawn = self.seen * self.group * self.job.max_new_tokens

    @property
    def trains_reward_model(self) -> bool:
        """Whether this stage trains a reward model, which has its own head in place of the language-model head."""
        return self.spec.goal is StageGoal.SCORES

    @property
    def optimiser_bytes(self) -> float:
        """Bytes of AdamW's moments, and of the average of the weights at a constant learning rate."""
        copies = MOMENTS + (self.stage.optimiser.schedule == "constant")
        return float(copies * FLOAT * self.moving.numbers)

    @property
    def keeps_start(self) -> bool:
        """Whether a copy of the initial trainable weights is kept as the reference."""
        return self.spec.keeps_start(self.algorithm)

    @property
    def per_pass(self) -> int:
        """Examples in one forward pass; a batch may need several (gradient accumulation)."""
        return max(1, min(self.batch, int(TOKEN_CAP[self.kind] // max(1.0, self.examples.tokens))))

    def training(self) -> Work:
        """Return the work of all steps, with rollouts, reference passes and the teacher's passes."""
        examples = self.examples
        numbers, tensors = self.cost.optimiser
        training_passes = Passes(
            passes=self.steps * math.ceil(self.batch / self.per_pass),
            sequences=self.seen * examples.sequences,
            tokens=self.tokens + self.seen * examples.sequences * _virtual(self.update),
            targets=0.0 if self.trains_reward_model else self.seen * examples.targets,
            length=examples.tokens / examples.sequences,
        )
        references = self.spec.reference_passes(self.algorithm, self.epochs)
        work = forward(self.model, training_passes, self.update, self.moving).plus(
            backward(self.model, training_passes, self.update, self.moving),
            forward(self.model, training_passes, self.update, self.moving).times(references),
            Work(
                optimised=self.steps * numbers * self.moving.numbers,
                tensors=self.steps * tensors * self.moving.tensors,
            ),
        )
        if self.teacher is not None:
            work = work.plus(forward(self.teacher, training_passes, None, None))
        return work.plus(self.rollouts())

    def rollouts(self) -> Work:
        """Return the work of generating answers: `group` for each prompt of a step."""
        if not self.group:
            return Work()
        size = 1 if isinstance(self.update, VirtualTokens) else SAMPLING_BATCH
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

    def training_memory(self, constant: Memory) -> Memory:
        """Return the memory held in the longest training step; `constant` is held throughout the trial."""
        examples, group = self.examples, self.per_pass
        spread = (
            STEP_SPREAD * self.job.spread * math.sqrt(group * examples.sequences) if examples.number > group else 0.0
        )
        tokens = min(group * examples.tokens + spread, max(TOKEN_CAP[self.kind], examples.tokens))
        tokens += group * examples.sequences * _virtual(self.update)
        targets = 0.0 if self.trains_reward_model else tokens * examples.targets / max(1.0, examples.tokens)
        trainable = float(FLOAT * self.moving.numbers)
        return constant._replace(
            copies=constant.copies + (trainable if self.keeps_start else 0.0),
            gradients=trainable,
            optimiser=self.optimiser_bytes,
            activations=tokens
            * kept_per_token(self.model, self.update, self.moving, examples.tokens / examples.sequences, self.kind)
            + kept_once(self.update, self.moving),
            logits=targets * self.model.facts.vocab_size * FLOAT,
        )

    def sampling_memory(self, constant: Memory) -> Memory:
        """Return the memory held while answers are generated in training."""
        size = 1 if isinstance(self.update, VirtualTokens) else min(SAMPLING_BATCH, self.batch * self.group)
        trainable = float(FLOAT * self.moving.numbers)
        return constant._replace(
            copies=constant.copies + (trainable if self.keeps_start else 0.0),
            optimiser=self.optimiser_bytes,
            sampling=sampling_bytes(self.model, size, self.job.prompt, self.job.max_new_tokens, self.kind),
        )


def _virtual(update: Update) -> int:
    """Return the number of virtual tokens before each sequence."""
    return update.tokens if isinstance(update, VirtualTokens) else 0


def _scorings(design: Design, stages: Sequence[_Stage]) -> int:
    """Return how often answers are generated and graded in training: at rungs, and at the end of stages but the last.

    A reward model has its own score.
    """
    steps = sum(stage.steps for stage in stages)
    shares = rung_shares(design, round(stages[0].examples.number)) if stages else ()
    rung_steps = {math.ceil(share * steps - ROUNDING) for share in shares} - {steps}
    return len(rung_steps) + sum(not stage.trains_reward_model for stage in stages[:-1])


def _moments(design: Design, stages: Sequence[_Stage], objective: Objective) -> tuple[int, int]:
    """Return at how many moments stages are scored by likelihood alone, and at how many with graded answers.

    The last moment of a stage that another one follows is a scoring between stages.
    """
    if not design.self_ending:
        return 0, 0
    counts = [0, 0]
    for stage in stages:
        last = stage is stages[-1]
        by_reward = objective == "reward" if last else not stage.algorithm.likelihood
        counts[by_reward] += 0 if stage.trains_reward_model else moments(stage.steps) - (not last)
    return counts[0], counts[1]


def _scored(
    model: Shape, job: Workload, rows: int, kind: Kind, generations: int, windows: int, unbatched: bool
) -> Work:
    """Return the judge's work on so many rows of a split. `unbatched`: answers are generated one at a time."""
    whole, target = job.prompt + job.target, job.target
    if model.facts.family == "encoder":
        masked_windows = min(rows * math.ceil(target / job.window), windows)
        return likelihood(model, masked_windows * job.pseudo_positions, 1, min(target, job.window), 1, kind)
    desirable = job.desirable if job.kind is DataKind.UNPAIRED else 1.0
    work = likelihood(model, rows * desirable, 1, whole, target, kind)
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
    batches = math.ceil(prompts / (1 if unbatched else _generated_at_once(job)))
    batch = prompts / max(1, batches)
    return work.plus(decoding(model, None, batches, job.prompt, job.answer, batch=batch, adapted=False))


def _generated_at_once(job: Workload) -> int:
    """Return how many answers the judge generates at once."""
    return generation_batch(math.ceil(job.prompt + job.max_new_tokens))


def _judging(model: Shape, job: Workload, kind: Kind, unbatched: bool) -> tuple[Work, float, float, int]:
    """Return the work of scoring validation and test rows, the bytes of a pass and of generation, and the rows."""
    splits = [min(split, job.max_rows) for split in (job.validation, job.test)]
    works = [_scored(model, job, rows, kind, job.max_generations, job.pseudo_windows, unbatched) for rows in splits]
    rows, length = max(splits), job.prompt + job.target
    if model.facts.family == "encoder":
        window = max(1.0, min(length, job.window))
        tokens = min(float(TOKEN_CAP[kind]), rows * job.pseudo_positions * window)
        targets = tokens / window
    else:
        tokens = min(float(TOKEN_CAP[kind]), rows * (2 if job.kind is DataKind.PREFERENCE else 1) * length)
        targets = tokens * job.target / max(1.0, length)
    size = 1 if unbatched else min(rows, _generated_at_once(job))
    sampling = sampling_bytes(model, size, job.prompt, job.max_new_tokens, kind) if job.graded else 0.0
    return Work().plus(*works), scoring_bytes(model, tokens, targets), sampling, sum(splits)


def _constant(base: Shape, model: Shape, stages: Sequence[_Stage], kind: Kind) -> Memory:
    """Return the memory held throughout the trial. On a CPU this includes the unedited base model."""
    added = max((stage.moving.added for stage in stages), default=0)
    numbers = model.parameters + added + (base.parameters if kind == "cpu" else 0)
    if any(UPDATE_OF[stage.update.kind].four_bit for stage in stages):
        numbers -= round((1 - FOUR_BITS) * sum(m.numbers * count for m, count in model.linear))
    reward_models = sum(stage.trains_reward_model for stage in stages)
    copies = (2 if kind == "cpu" else 1) * reward_models * model.parameters
    return Memory(process=1.0, weights=float(FLOAT * numbers), copies=float(FLOAT * copies))


def _other(base: Shape, model: Shape, design: Design, stages: Sequence[_Stage], job: Workload) -> Work:
    """Return the work of building the model, adding and merging the updates, and writing the result."""
    created = float(model.parameters)
    if design.architecture.edited:
        created *= 3  # weights are initialised at random before the base model's are copied
    modules = merged = flops = 0.0
    for index, stage in enumerate(stages):
        if index and stage.update == stages[index - 1].update and not stage.trains_reward_model:
            continue
        modules += stage.moving.count
        merged += stage.moving.weights
        flops += stage.cost.applying(stage.update, stage.moving)
    work = Work(flops=flops, copied=2 * created + merged, modules=modules, leases=1.0)
    if design.architecture.depth_rule == "block_influence":
        tokens = INFLUENCE_ROWS * min(float(INFLUENCE_TOKENS), job.prompt + job.target)
        done = Passes(passes=INFLUENCE_ROWS, sequences=INFLUENCE_ROWS, tokens=tokens, targets=0, length=tokens / 16)
        return forward(base, done, None, None).plus(work)
    return work
