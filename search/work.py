"""What a trial does, in numbers that do not depend on the machine: passes, tokens, FLOPs, and bytes held at once.

A matrix product of T tokens with N weights takes 2·T·N FLOPs, its backward pass as many again for the inputs' gradient
and for the weights' (Kaplan et al. 2020, section 2.1: 6·N for a token where all weights move). What is kept for the
backward pass is counted as in Korthikanti et al. (2022), section 4.1, tensor by tensor, for the layers as they are
here: attention that keeps no scores, rows without padding, logits for targets alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from pydantic import Field

from luthier.dataset import Profile
from luthier.design import (
    AdaLora,
    Algorithm,
    Clm,
    Design,
    Dora,
    Dpo,
    Frozen,
    Full,
    Grpo,
    Ia3,
    Ipo,
    Kto,
    Lora,
    LoraPlus,
    Mlm,
    Oft,
    Orpo,
    Pissa,
    QLora,
    Raft,
    RewardModel,
    Rloo,
    RsLora,
    Sft,
    Simpo,
    Stage,
    TopLayers,
    Update,
    Vera,
    VirtualTokens,
)
from luthier.model import ModelFacts
from luthier.task import DataKind, JudgeSpec
from luthier.trial import RUNGS
from search.parameters import Moving, Shape, moving, shape

Kind = Literal["cpu", "cuda", "mps"]

TOKEN_CAP: Final[dict[Kind, int]] = {"cpu": 2048, "cuda": 16384, "mps": 4096}  # of one pass, as the workers have it
SAMPLING_BATCH, GENERATION_BATCH = 64, 8  # answers drawn at once in training, and by the judge
# Rows, answers and windows of encoders that are scored at a rung, and after a stage.
RUNG_ROWS, RUNG_GENERATIONS, RUNG_WINDOWS = 32, 16, 16
NEARLY: Final = 1e-9
FLOAT: Final = 4  # bytes: weights, gradients and optimiser state are float32 everywhere
FOUR_BITS: Final = 0.14  # of float32, with the scales of NF4 (Dettmers et al. 2023)
MOMENTS: Final = 2  # of AdamW, for each number that moves
INFLUENCE_ROWS, INFLUENCE_TOKENS = 16, 256  # that layers are weighed on before some are cut
SVD_PASSES: Final = 34  # of PiSSA over each matrix: 16 power iterations, there and back
ANSWER_EXCESS, ANSWER_MARGIN = 1.5, 4.0
STEP_SPREAD: Final = 1.5  # standard deviations by which the longest step of a training exceeds the mean


class Workload(Frozen):
    """What a job makes each of its trials do. Lengths are in tokens, the longest ones cut as the job's judge cuts."""

    kind: DataKind
    rows: int = Field(ge=1, description="that are trained on")
    prompt: float = Field(ge=0, description="mean length of a row's prompt")
    target: float = Field(ge=0, description="mean length of one of its answers, or of its text")
    spread: float = Field(default=0.0, ge=0, description="standard deviation of a row's length")
    validation: int = Field(ge=0, description="rows")
    test: int = Field(ge=0, description="rows")
    window: int
    max_tokens: int
    max_new_tokens: int
    max_rows: int
    max_generations: int
    pseudo_positions: int
    pseudo_windows: int
    graded: bool = Field(description="whether the judge lets the model answer")
    desirable: float = Field(default=1.0, description="share of unpaired rows whose answer is")

    @property
    def answer(self) -> float:
        """Tokens until the last of a few answers has ended, where the model has learnt to end them: rather more than
        the rows' own have, where they have any."""
        likely = ANSWER_EXCESS * self.target + ANSWER_MARGIN
        return min(float(self.max_new_tokens), likely) if self.target else float(self.max_new_tokens)


def workload(
    profile: Profile, judge: JudgeSpec, *, rows: int, validation: int, test: int, ratio: float = 1.0
) -> Workload:
    """`ratio`: tokens that were trained on for each one that the profile counts, where trials have shown it."""
    count = max(1, profile.rows)
    answers = 2 if profile.kind is DataKind.PREFERENCE else 1
    limit = judge.window if profile.kind is DataKind.TEXT else judge.max_tokens
    prompt = ratio * (profile.tokens - profile.target_tokens) / count
    target = ratio * profile.target_tokens / (count * answers)
    if profile.kind is not DataKind.TEXT and prompt + target > limit:
        prompt, target = prompt * limit / (prompt + target), target * limit / (prompt + target)
    return Workload(
        kind=profile.kind,
        rows=max(1, rows),
        prompt=prompt,
        target=target,
        spread=_spread(profile) * ratio,
        validation=validation,
        test=test,
        graded=judge.grader is not None or judge.environment is not None,
        desirable=1.0 if profile.desirable is None else profile.desirable,
        window=judge.window,
        max_tokens=judge.max_tokens,
        max_new_tokens=judge.max_new_tokens,
        max_rows=judge.max_rows,
        max_generations=judge.max_generations,
        pseudo_positions=judge.pseudo_positions,
        pseudo_windows=judge.pseudo_windows,
    )


def _spread(profile: Profile) -> float:
    """From the 50th and the 90th percentile, as of a normal distribution."""
    lengths = [profile.target_lengths, *([profile.prompt_lengths] if profile.prompt_lengths else [])]
    return math.sqrt(sum(((each.p90 - each.p50) / 1.2816) ** 2 for each in lengths))


class Work(NamedTuple):
    """Amounts of work, each with a price in seconds on a device."""

    flops: float = 0.0  # of matrix products
    elements: float = 0.0  # read and written between them
    logits: float = 0.0  # and their softmax, numbers
    calls: float = 0.0  # of operations, whatever their size
    weights: float = 0.0  # read by passes that draw a token for a few sequences, numbers
    decoded: float = 0.0  # operations of such passes
    optimised: float = 0.0  # numbers moved by optimiser steps
    tensors: float = 0.0  # moved by optimiser steps
    copied: float = 0.0  # numbers of models that are made, merged and written
    modules: float = 0.0  # adapters put in place and merged
    leases: float = 0.0  # begun and ended

    def plus(self, *others: Work) -> Work:
        return Work(*map(sum, zip(self, *others, strict=True)))

    def times(self, factor: float) -> Work:
        return Work(*(factor * amount for amount in self))


class Memory(NamedTuple):
    """Bytes held at once, by what holds them."""

    process: float = 0.0  # 1: everything that is there before a trial begins
    weights: float = 0.0  # of the model, and of the base as registered on a CPU
    copies: float = 0.0  # references, reward models, weights on their way to files
    gradients: float = 0.0
    optimiser: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    sampling: float = 0.0  # keys and values, and logits of answers while they are drawn
    scoring: float = 0.0  # what a pass without gradients holds


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


class _Diet(NamedTuple):
    """Examples of a stage: how many, and of each its sequences, tokens and targets."""

    examples: float
    sequences: float
    tokens: float
    targets: float


def plan(facts: ModelFacts, design: Design, job: Workload, kind: Kind) -> Plan:
    """All that a trial of the design does from its lease to its export, on a device of this kind."""
    model = shape(facts, design.architecture)
    base = shape(facts, design.architecture.model_copy(update={"layers": None, "kv_heads": None}))
    stages = [_Stage(model, stage, job, kind, design) for stage in design.stages]
    judging, scoring, sampling, judged = _judging(model, job, kind, _in_front(design))
    resting = _resting(base, model, stages, kind)
    for number, stage in enumerate(design.stages[:-1]):
        if stage.algorithm.kind != "reward_model" and design.stages[number + 1].update == stage.update:
            continue
        resting = resting._replace(copies=resting.copies + (FLOAT * model.parameters if kind == "cpu" else 0))
    phases = [stage.training_memory(resting) for stage in stages]
    phases += [stage.sampling_memory(resting) for stage in stages if stage.group]
    rungs = _rungs(stages)
    moments = max((MOMENTS * FLOAT * stage.moving.numbers for stage in stages), default=0)
    part = min(1.0, RUNG_ROWS / max(1, min(max(job.validation, job.test), job.max_rows)))
    if rungs:
        phases.append(resting._replace(scoring=scoring * part, sampling=sampling, optimiser=float(moments)))
    phases.append(resting._replace(scoring=scoring, sampling=sampling))
    if stages:
        phases.append(resting._replace(copies=resting.copies + (FLOAT * model.parameters if kind == "cpu" else 0)))
    few = _scored(model, job, min(RUNG_ROWS, job.validation), kind, RUNG_GENERATIONS, RUNG_WINDOWS, _in_front(design))
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
        judged_rows=judged + rungs * min(RUNG_ROWS, job.validation),
        parameters=model.parameters + max((stage.moving.added for stage in stages), default=0),
        trainable=moved,
        inference=_decoding(model, None, 1, 0.0, 1, batch=1, adapted=False),
    )


class _Stage:
    """One stage of a design, in amounts."""

    def __init__(self, model: Shape, stage: Stage, job: Workload, kind: Kind, design: Design) -> None:
        self.model, self.stage, self.job, self.kind = model, stage, job, kind
        self.algorithm, self.update = stage.algorithm, stage.update
        self.moving: Moving = moving(model, stage.update)
        self.diet = _diet(stage.algorithm, job)
        self.group = stage.algorithm.group if isinstance(stage.algorithm, Grpo | Rloo | Raft) else 0
        passes = max(1, round(self.diet.examples * stage.optimiser.epochs))
        self.batch = min(stage.optimiser.batch_size, passes)
        self.steps = math.ceil(passes / stage.optimiser.batch_size)
        self.seen = float(passes)  # examples, each as often as it is seen
        self.tokens = self.seen * self.diet.tokens
        self.drawn = self.seen * self.group * self.job.max_new_tokens
        self.edited = design.architecture.window

    @property
    def scored(self) -> bool:
        """Whether a reward model is trained here, which has a head of its own in place of the model's."""
        return isinstance(self.algorithm, RewardModel)

    @property
    def reference(self) -> float:
        """Forward passes without a gradient, as often as the examples are seen."""
        match self.algorithm:
            case Dpo() | Ipo():
                return 1.0 / max(1.0, self.stage.optimiser.epochs)
            case Kto():
                return 3.0
            case Grpo(beta=beta):
                return 1.0 if beta else 0.0
            case Rloo(beta=beta):
                return 2.0 if beta else 0.0
            case _:
                return 0.0

    @property
    def copied(self) -> bool:
        """Whether the moving weights are kept as they were at first."""
        match self.algorithm:
            case Kto():
                return True
            case Grpo(beta=beta) | Rloo(beta=beta):
                return bool(beta)
            case _:
                return False

    @property
    def per_pass(self) -> int:
        """Examples in one forward pass."""
        return max(1, min(self.batch, int(TOKEN_CAP[self.kind] // max(1.0, self.diet.tokens))))

    def training(self) -> Work:
        """All steps, with what is drawn and compared for them."""
        diet, passes = self.diet, self.steps * math.ceil(self.batch / self.per_pass)
        learnt = _Passes(
            passes=passes,
            sequences=self.seen * diet.sequences,
            tokens=self.tokens + self.seen * diet.sequences * _virtual(self.update),
            targets=0.0 if self.scored else self.seen * diet.targets,
            length=diet.tokens / diet.sequences,
        )
        compared = self.reference
        work = _forward(self.model, learnt, self.update, self.moving).plus(
            _backward(self.model, learnt, self.update, self.moving),
            _forward(self.model, learnt, self.update, self.moving).times(compared),
            self._stepping(),
        )
        return work.plus(self.rollouts())

    def _stepping(self) -> Work:
        numbers, tensors = self.moving.numbers, self.moving.tensors
        if isinstance(self.update, AdaLora):  # importance of each number, and right angles
            numbers, tensors = 3 * numbers, 4 * tensors
        return Work(optimised=float(self.steps * numbers), tensors=float(self.steps * tensors))

    def rollouts(self) -> Work:
        """Answers drawn, `group` for each prompt of a step."""
        if not self.group:
            return Work()
        alone = isinstance(self.update, VirtualTokens)
        size = 1 if alone else SAMPLING_BATCH
        prompts = self.seen * self.group
        per_step = max(1, round(prompts / self.steps))
        batches = self.steps * math.ceil(per_step / size)
        return _decoding(
            self.model,
            self.update,
            batches,
            self.job.prompt,
            self.job.max_new_tokens,
            batch=prompts / batches,
            adapted=True,
        )

    def training_memory(self, resting: Memory) -> Memory:
        diet, group = self.diet, self.per_pass
        spread = STEP_SPREAD * self.job.spread * math.sqrt(group * diet.sequences) if diet.examples > group else 0.0
        most = group * diet.tokens + spread
        tokens = min(most, max(TOKEN_CAP[self.kind], diet.tokens)) + group * diet.sequences * _virtual(self.update)
        targets = 0.0 if self.scored else tokens * diet.targets / max(1.0, diet.tokens)
        moved = float(FLOAT * self.moving.numbers)
        return resting._replace(
            copies=resting.copies + (moved if self.copied else 0.0),
            gradients=moved,
            optimiser=MOMENTS * moved,
            activations=tokens * _kept(self.model, self.update, self.moving, diet.tokens / diet.sequences, self.kind)
            + _kept_once(self.update, self.moving),
            logits=targets * self.model.facts.vocab_size * FLOAT,
        )

    def sampling_memory(self, resting: Memory) -> Memory:
        size = 1 if isinstance(self.update, VirtualTokens) else min(SAMPLING_BATCH, self.batch * self.group)
        moved = float(FLOAT * self.moving.numbers)
        return resting._replace(
            copies=resting.copies + (moved if self.copied else 0.0),
            optimiser=MOMENTS * moved,
            sampling=_sampling(self.model, size, self.job.prompt, self.job.max_new_tokens, self.kind),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Passes:
    """So many passes over so many tokens in all, in sequences of a mean length."""

    passes: float
    sequences: float
    tokens: float
    targets: float
    length: float


def _diet(algorithm: Algorithm, job: Workload) -> _Diet:
    prompt, target = job.prompt, job.target
    if job.kind is DataKind.TEXT:
        windows = max(1.0, math.ceil(target / job.window))
        share = algorithm.mask if isinstance(algorithm, Mlm) else 1.0
        length = target / windows
        return _Diet(job.rows * windows, 1, length, share * length)
    whole = prompt + target
    match algorithm:
        case Grpo(group=group) | Rloo(group=group):
            return _Diet(job.rows, group, group * (prompt + job.max_new_tokens), group * job.max_new_tokens)
        case Raft():
            return _Diet(job.rows, 1, prompt + job.max_new_tokens, job.max_new_tokens)
        case Dpo() | Ipo() | Simpo() | RewardModel():
            return _Diet(job.rows, 2, 2 * whole, 2 * target)
        case Orpo():
            return _Diet(job.rows, 3, prompt + 2 * whole, prompt + 2 * target)
        case Kto():
            answers = 2 if job.kind is DataKind.PREFERENCE else 1
            return _Diet(job.rows * answers, 1, whole, target)
        case Clm():
            return _Diet(job.rows, 1, whole, whole)
        case Sft() | Mlm():
            share = job.desirable if job.kind is DataKind.UNPAIRED else 1.0
            return _Diet(max(1.0, job.rows * share), 1, whole, target)


def _virtual(update: Update) -> int:
    return update.tokens if isinstance(update, VirtualTokens) else 0


def _in_front(design: Design) -> bool:
    return any(isinstance(stage.update, VirtualTokens) for stage in design.stages)


def _reached(model: Shape, update: Update) -> float:
    """The share of the layers that the backward pass goes through."""
    return min(1.0, update.layers / model.layers) if isinstance(update, TopLayers) else 1.0


def _matrices(model: Shape, *, layered: bool) -> float:
    """Weights that each token is multiplied with; shared layers count as often as they are used."""
    reuse = model.layers / model.stored_layers
    return sum(m.numbers * count * (reuse if m.layered else 1) for m, count in model.linear if m.layered == layered)


def _attended(model: Shape, tokens: float, length: float) -> float:
    """FLOPs of scores and of what they weigh; the half of them that a decoder sees."""
    seen = length if model.facts.family == "encoder" else length / 2
    return 4 * tokens * seen * model.attention_width * model.layers


# Operations of one layer's pass, of one sequence in it, and of one adapter; rough, their price is fitted.
_LAYER_CALLS, _SEQUENCE_CALLS, _PASS_CALLS = 34, 5, 60
_CALLS: Final = {"dora": 18, "vera": 10, "oft": 30, "adalora": 8, "ia3": 3}
_LORA_CALLS: Final = 6


def _calls(model: Shape, done: _Passes, update: Update | None, modules: Moving | None) -> float:
    layers = model.layers * (_LAYER_CALLS * done.passes + _SEQUENCE_CALLS * done.sequences)
    adapters = 0.0
    if update is not None and modules is not None:
        each = _CALLS.get(update.kind, _LORA_CALLS)
        adapters = each * done.passes * sum(count for _, count in modules.modules)
    return layers + adapters + _PASS_CALLS * done.passes


def _forward(model: Shape, done: _Passes, update: Update | None, modules: Moving | None) -> Work:
    dense = 2 * done.tokens * _matrices(model, layered=True) + 2 * done.targets * _matrices(model, layered=False)
    adapters = _adapter_forward(done, update, modules)
    return Work(
        flops=dense + _attended(model, done.tokens, done.length) + 2 * done.targets * model.head,
        elements=done.tokens * model.layers * (12 * model.hidden + 4 * model.inner),
        logits=3 * done.targets * model.facts.vocab_size,
        calls=_calls(model, done, update, modules),
    ).plus(adapters)


def _backward(model: Shape, done: _Passes, update: Update, modules: Moving) -> Work:
    reached = _reached(model, update)
    dense = 2 * done.tokens * _matrices(model, layered=True) + 2 * done.targets * _matrices(model, layered=False)
    head = 2 * done.targets * model.head
    moved = 0.0
    if isinstance(update, Full):
        moved = dense + head
    elif isinstance(update, TopLayers):
        moved = dense * reached
    adapters = _adapter_forward(done, update, modules).times(2.0)
    return Work(
        flops=reached * (dense + 2.5 * _attended(model, done.tokens, done.length)) + head + moved,
        elements=reached * 2 * done.tokens * model.layers * (12 * model.hidden + 4 * model.inner),
        logits=3 * done.targets * model.facts.vocab_size,
        calls=1.5 * reached * _calls(model, done, update, modules),
    ).plus(adapters)


def _adapter_forward(done: _Passes, update: Update | None, modules: Moving | None) -> Work:
    """What adapters add to a pass: for each token, and for each pass whatever its tokens."""
    if update is None or modules is None or not modules.modules:
        return Work()
    sites = modules.modules
    outputs = sum(m.outputs * n for m, n in sites)
    inputs = sum(m.inputs * n for m, n in sites)
    numbers = sum(m.numbers * n for m, n in sites)
    tokens, passes = done.tokens, done.passes
    match update:
        case Lora() | RsLora() | Pissa() | LoraPlus() | QLora() | AdaLora():
            return Work(flops=2 * tokens * modules.numbers, elements=2 * tokens * outputs)
        case Dora(rank=rank):  # the norm of each whole weight, in every pass
            return Work(
                flops=2 * tokens * modules.numbers
                + 2 * passes * rank * (numbers + sum(m.inputs**2 * n for m, n in sites)),
                elements=4 * tokens * outputs + 5 * passes * numbers,
            )
        case Vera(rank=rank):
            return Work(
                flops=2 * tokens * rank * (inputs + outputs), elements=tokens * (2 * rank * len(sites) + 3 * outputs)
            )
        case Oft(block=block):
            return Work(
                flops=2 * tokens * inputs * block + 8 * passes * inputs * block * block,
                elements=3 * tokens * inputs + 8 * passes * inputs * block,
            )
        case Ia3():
            return Work(elements=2 * tokens * modules.numbers)
        case _:
            return Work()


def _decoding(
    model: Shape, update: Update | None, batches: float, prompt: float, new: float, *, batch: float, adapted: bool
) -> Work:
    """Answers of `new` tokens to prompts, in batches: a pass for all of the prompts, then one for each token."""
    modules = moving(model, update) if adapted and update is not None else None
    opening = _Passes(passes=batches, sequences=batches, tokens=batches * batch * prompt, targets=0.0, length=prompt)
    drawn = _Passes(
        passes=batches * new,
        sequences=0.0,
        tokens=batches * batch * new,
        targets=batches * batch * new,
        length=prompt + new / 2,
    )
    each = _forward(model, drawn, update if adapted else None, modules)
    first = _forward(model, opening, update if adapted else None, modules) if prompt else Work()
    read = drawn.passes * (_matrices(model, layered=True) + model.head)
    return first.plus(each._replace(calls=0.0, decoded=each.calls, weights=read))


def _likelihood(model: Shape, rows: float, sequences: float, tokens: float, targets: float, kind: Kind) -> Work:
    """Rows scored without gradients; `sequences`, `tokens` and `targets` of each."""
    passes = math.ceil(rows * tokens / TOKEN_CAP[kind]) if rows else 0
    done = _Passes(
        passes=passes,
        sequences=rows * sequences,
        tokens=rows * tokens,
        targets=rows * targets,
        length=tokens / sequences,
    )
    return _forward(model, done, None, None)


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
        return _likelihood(model, masked, 1, min(target, job.window), 1, kind)
    desired = job.desirable if job.kind is DataKind.UNPAIRED else 1.0
    work = _likelihood(model, rows * desired, 1, whole, target, kind)
    match job.kind:
        case DataKind.PREFERENCE:
            return work.plus(_likelihood(model, rows, 2, 2 * whole, 2 * target, kind))
        case DataKind.UNPAIRED:
            return work.plus(_likelihood(model, rows, 1, whole, target, kind))
        case _:
            pass
    if not job.graded:
        return work
    prompts = min(rows, generations)
    batches = math.ceil(prompts / (1 if in_front else GENERATION_BATCH))
    batch = prompts / max(1, batches)
    return work.plus(_decoding(model, None, batches, job.prompt, job.answer, batch=batch, adapted=False))


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
    sampling = _sampling(model, size, job.prompt, job.max_new_tokens, kind) if job.graded else 0.0
    return Work().plus(*works), _held(model, tokens, targets), sampling, sum(splits)


def _held(model: Shape, tokens: float, targets: float) -> float:
    """Bytes of a pass without gradients: one layer's, and the logits."""
    layer = 4 * model.hidden + (3 if model.gated else 2) * model.inner
    return FLOAT * (tokens * layer + 2 * targets * model.facts.vocab_size)


def _sampling(model: Shape, size: float, prompt: float, new: float, kind: Kind) -> float:
    """Keys and values of all layers, once more while they grow, and the logits of a batch of answers."""
    kept = size * (prompt + new) * 2 * model.kv_width * (model.layers + 1)
    layer = size * prompt * (4 * model.hidden + 3 * model.inner)
    width = FLOAT if kind != "cuda" else 2  # autocast: bfloat16
    return width * (kept + layer) + 3 * FLOAT * size * model.facts.vocab_size


def _kept(model: Shape, update: Update, modules: Moving, length: float, kind: Kind) -> float:
    """Bytes kept for the backward pass, for each token."""
    hidden, inner, width, keys = model.hidden, model.inner, model.attention_width, model.kv_width
    in_place = isinstance(update, Full | TopLayers) or update.kind == "layernorm"
    residual = 2 * hidden  # what each norm reads
    normed = 2 * hidden * (2 if in_place else 1)  # what it makes, with its weight and without
    attention = 3 * width + 2 * keys
    if model.kv_heads != model.facts.heads:
        attention += 2 * (width - keys)
    wide = (4 if model.gated else 2) * inner
    layer = residual + normed + attention + wide
    sites = modules.modules
    outputs, inputs = sum(m.outputs * n for m, n in sites), sum(m.inputs * n for m, n in sites)
    count = sum(n for _, n in sites)
    match update:
        case Lora(rank=rank) | RsLora(rank=rank) | Pissa(rank=rank) | LoraPlus(rank=rank) | QLora(rank=rank):
            own = rank * count
        case AdaLora(rank=rank):
            own = 2 * rank * count
        case Dora(rank=rank):
            own = 2 * outputs + rank * count
        case Vera(rank=rank):
            own = 2 * rank * count + outputs
        case Oft():
            own = inputs
        case Ia3():
            own = modules.numbers
        case _:
            own = 0
    size = FLOAT if kind != "cuda" else 3  # autocast: most are bfloat16, the norms' float32
    return size * (_reached(model, update) * model.layers * layer + own)


def _kept_once(update: Update, modules: Moving) -> float:
    """Bytes kept for the backward pass whatever the tokens."""
    numbers = sum(m.numbers * n for m, n in modules.modules)
    match update:
        case Dora():
            return float(FLOAT * sum(m.outputs * n for m, n in modules.modules))
        case Oft(block=block):
            return float(FLOAT * 3 * block * sum(m.inputs * n for m, n in modules.modules))
        case AdaLora():
            return float(FLOAT * 4 * modules.numbers)
        case Vera():
            return float(FLOAT * 0 * numbers)
        case _:
            return 0.0


def _resting(base: Shape, model: Shape, stages: Sequence[_Stage], kind: Kind) -> Memory:
    """What is there all the time: on a CPU the base as registered stays in the same memory."""
    added = max((stage.moving.added for stage in stages), default=0)
    numbers = model.parameters + added + (base.parameters if kind == "cpu" else 0)
    if any(isinstance(stage.update, QLora) for stage in stages):
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
        modules += sum(count for _, count in stage.moving.modules)
        merged += sum(m.numbers * count for m, count in stage.moving.modules)
        if isinstance(stage.update, Pissa):
            flops += 4 * SVD_PASSES * stage.update.rank * sum(m.numbers * n for m, n in stage.moving.modules)
    if design.architecture.depth_rule == "block_influence":
        tokens = INFLUENCE_ROWS * min(float(INFLUENCE_TOKENS), job.prompt + job.target)
        done = _Passes(passes=INFLUENCE_ROWS, sequences=INFLUENCE_ROWS, tokens=tokens, targets=0, length=tokens / 16)
        return _forward(base, done, None, None).plus(
            Work(flops=flops, copied=2 * made + merged, modules=modules, leases=1.0)
        )
    return Work(flops=flops, copied=2 * made + merged, modules=modules, leases=1.0)
