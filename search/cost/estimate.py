"""The cost of a design on a device, estimated before it runs: memory, seconds, FLOPs.

`trial_work` counts the work of a trial; here it gets prices. A device starts with the default prices of its kind
(DEFAULTS). Finished trials move them: non-negative least squares (Lawson & Hanson 1974) of relative errors, regularised
towards the defaults. All prices are first scaled by the device's measured speed, so that one finished trial already
improves the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from luthier.design import Design
from luthier.models.base_model import ModelFacts
from luthier.trial import Usage
from luthier.values import Frozen
from search.cost.flops import Kind
from search.cost.memory import Memory
from search.cost.trial_work import Plan, plan
from search.methods.amounts import Work, Workload

Vector = npt.NDArray[np.float64]

# Seconds per unit of each kind of work. CPU: one thread of a server. CUDA: a card like the A100, at the third of its
# peak that dense training reaches, with kernels launched one by one.
DEFAULTS: Final[Mapping[Kind, Work]] = {
    "cpu": Work(
        flops=4e-11,
        elements=3e-10,
        logits=1e-9,
        calls=8e-6,
        weights=2e-10,
        decoded=1.2e-5,
        optimised=4e-9,
        tensors=3e-5,
        copied=8e-9,
        modules=5e-4,
        leases=0.5,
    ),
    "cuda": Work(
        flops=1e-14,
        elements=4e-12,
        logits=1e-11,
        calls=1e-5,
        weights=3e-12,
        decoded=1.5e-5,
        optimised=3e-11,
        tensors=1e-6,
        copied=4e-9,
        modules=5e-4,
        leases=2.0,
    ),
    "mps": Work(
        flops=5e-13,
        elements=3e-11,
        logits=1e-10,
        calls=2e-5,
        weights=2e-11,
        decoded=3e-5,
        optimised=1e-10,
        tensors=1e-5,
        copied=8e-9,
        modules=5e-4,
        leases=1.0,
    ),
}
# Bytes of memory for each byte counted: the allocator and short-lived tensors add some.
MEMORY_DEFAULTS: Final[Mapping[Kind, Memory]] = {
    "cpu": Memory(4.7e8, 1.0, 1.0, 1.0, 1.0, 1.1, 4.0, 1.0, 1.3),
    "cuda": Memory(2e7, 1.0, 1.0, 1.0, 1.0, 1.2, 4.0, 1.0, 1.3),
    "mps": Memory(4.7e8, 1.0, 1.0, 1.0, 1.0, 1.2, 4.0, 1.0, 1.3),
}
CONTEXT: Final[Mapping[Kind, int]] = {"cpu": 0, "cuda": 10**9, "mps": 0}  # bytes that the driver reserves
PRIOR_TRIALS: Final = 2.0  # how many finished trials a default price weighs as much as
PRIOR_TOLERANCE: Final = 3.0  # an uncalibrated estimate may be wrong by a factor of 1 + this
ROUNDS: Final = 4  # of fitting memory prices


class Seen(Frozen):
    """A past trial: its design and job, and what its last lease took."""

    design: Design
    facts: ModelFacts
    job: Workload
    usage: Usage
    seconds: float | None = Field(
        default=None, ge=0, description="of the whole trial; None if it had more than one lease"
    )
    ended: bool = Field(default=True, description="False if it paused at a rung, before the final scoring")

    @property
    def has_typical_steps(self) -> bool:
        """Whether its steps represent the whole design: a paused trial may have run only the first of its stages."""
        return self.ended or len(self.design.stages) == 1


class Estimate(Frozen):
    """The expected cost of a trial of a design, from its lease to its export."""

    memory_bytes: int = Field(description="peak; on a CPU of the whole worker process")
    seconds: float
    tokens_per_second: float = Field(description="tokens trained on per second of training")
    flops: float = Field(description="of the matrix products in training")
    parameters: int
    trainable_parameters: int
    tokens: int = Field(description="tokens trained on")
    steps: int = Field(description="optimiser steps")
    inference_flops: float = Field(description="per generated token")
    feasible: bool
    why: str | None = Field(default=None, description="why it is not feasible, with the figures")
    memory_parts: dict[str, int] = Field(description="peak memory in bytes, by what holds it")
    seconds_parts: dict[str, float] = Field(description="training (without rollouts), rollouts, judging, other")
    calibrated_from: int = Field(description="finished trials on this kind of device; 0: default prices only")


class Calibration(Frozen):
    """The prices of a kind of device, made by `calibrate`."""

    kind: Kind
    trials: int = Field(default=0, ge=0)
    seconds: tuple[float, ...] = Field(description="per unit of each kind of work, in the order of `Work`")
    bytes: tuple[float, ...] = Field(description="per byte counted, in the order of `Memory`")

    @classmethod
    def default(cls, kind: Kind) -> Self:
        """Return the default prices, without any finished trial."""
        return cls(kind=kind, seconds=tuple(DEFAULTS[kind]), bytes=tuple(MEMORY_DEFAULTS[kind]))

    @property
    def uncertainty(self) -> float:
        """The factor by which an estimate may be too low or too high."""
        return 1.0 + PRIOR_TOLERANCE / (1.0 + self.trials)

    def price(self, work: Work) -> float:
        """Return the seconds that this work takes."""
        return sum(price * amount for price, amount in zip(self.seconds, work, strict=True))

    def memory_parts(self, memory: Memory) -> dict[str, float]:
        """Return the bytes by what holds them."""
        return {name: b * n for name, b, n in zip(Memory._fields, self.bytes, memory, strict=True)}


def estimate(
    facts: ModelFacts,
    design: Design,
    job: Workload,
    calibration: Calibration,
    *,
    memory_bytes: float | None = None,
    seconds: float | None = None,
) -> Estimate:
    """Return the expected cost of a trial.

    It is feasible if it fits into `memory_bytes` and `seconds`; the seconds may be exceeded by the uncertainty.
    """
    trial = plan(facts, design, job, calibration.kind)
    peak = max((calibration.memory_parts(phase) for phase in trial.phases), key=lambda parts: sum(parts.values()))
    memory = sum(peak.values()) + CONTEXT[calibration.kind]
    rollouts = calibration.price(trial.rollouts)
    training = calibration.price(trial.training)
    parts = {
        "training": training - rollouts,
        "rollouts": rollouts,
        "judging": calibration.price(trial.judging),
        "other": calibration.price(trial.other),
    }
    total = sum(parts.values())
    why = _why(memory, memory_bytes, total, seconds, calibration)
    return Estimate(
        memory_bytes=round(memory),
        seconds=total,
        tokens_per_second=trial.tokens / training if training else 0.0,
        flops=trial.training.flops,
        parameters=trial.parameters,
        trainable_parameters=trial.trainable,
        tokens=round(trial.tokens),
        steps=trial.steps,
        inference_flops=trial.inference.flops,
        feasible=why is None,
        why=why,
        memory_parts={name: round(held) for name, held in peak.items() if held >= 1},
        seconds_parts=parts,
        calibrated_from=calibration.trials,
    )


def _why(
    memory: float, memory_bytes: float | None, seconds: float, most: float | None, calibration: Calibration
) -> str | None:
    if memory_bytes is not None and memory > memory_bytes:
        return f"it is expected to need {size(memory)} of memory, but {size(memory_bytes)} is available"
    if most is not None and seconds / calibration.uncertainty > most:
        return f"it is expected to take {seconds:.3g} s, but {max(0.0, most):.3g} s are left"
    return None


def size(memory: float) -> str:
    """Return a number of bytes in words, in MiB or GiB."""
    return f"{memory / 2**30:.2f} GiB" if memory >= 2**30 else f"{memory / 2**20:.0f} MiB"


def calibrate(kind: Kind, seen: Sequence[Seen]) -> Calibration:
    """Return the prices fitted to trials on devices of one kind; the defaults without any."""
    if not seen:
        return Calibration.default(kind)
    plans = [plan(each.facts, each.design, each.job, kind) for each in seen]
    return Calibration(
        kind=kind,
        trials=len(seen),
        seconds=_seconds(kind, seen, plans),
        bytes=_bytes(kind, seen, plans),
    )


def token_ratio(seen: Iterable[Seen]) -> float:
    """Return the median ratio of tokens trained on to tokens expected, over trials of one dataset; 1 if unknown."""
    found: list[tuple[bool, float]] = []  # whether answers were generated in training, and the ratio
    for each in seen:
        trial = plan(each.facts, each.design, each.job, "cpu")
        if each.has_typical_steps and each.usage.steps and trial.steps and each.usage.train_tokens:
            expected = trial.tokens * each.usage.steps / trial.steps
            found.append((trial.drawn > 0, each.usage.train_tokens / expected))
    # The length of generated answers is a guess too, so trials that generate any count only if there are no others.
    generated = all(generates for generates, _ in found)
    ratios = [ratio for generates, ratio in found if generates == generated]
    return float(np.median(ratios)) if ratios else 1.0


def _seconds(kind: Kind, seen: Sequence[Seen], plans: Sequence[Plan]) -> tuple[float, ...]:
    """Fit the prices in seconds to the training, judging and other time of each trial."""
    rows: list[Work] = []
    measured: list[float] = []
    for each, trial in zip(seen, plans, strict=True):
        usage = each.usage
        if each.has_typical_steps and usage.steps and trial.steps:
            rows.append(trial.training.times(usage.steps / trial.steps))
            measured.append(usage.train_seconds)
        if usage.judged_rows and trial.judged_rows:
            rows.append(trial.judging.times(usage.judged_rows / trial.judged_rows))
            measured.append(usage.judge_seconds)
        rest = None if each.seconds is None else each.seconds - usage.train_seconds - usage.judge_seconds
        if rest is not None and rest > 0:
            rows.append(trial.other)
            measured.append(rest)
    return _fit(np.array(rows, dtype=float), np.array(measured), np.array(DEFAULTS[kind]), scaled_by_speed=True)


def _bytes(kind: Kind, seen: Sequence[Seen], plans: Sequence[Plan]) -> tuple[float, ...]:
    """Fit the memory prices. The phase of peak memory depends on the prices, so several rounds are made."""
    defaults = np.array(MEMORY_DEFAULTS[kind])
    ended = [(each, trial) for each, trial in zip(seen, plans, strict=True) if each.ended]
    if not ended:
        return MEMORY_DEFAULTS[kind]
    prices, measured = defaults, np.array([float(each.usage.peak_memory_bytes) for each, _ in ended])
    for _ in range(ROUNDS):
        rows = [max(trial.phases, key=lambda phase: float(prices @ np.array(phase))) for _, trial in ended]
        prices = np.array(_fit(np.array(rows, dtype=float), measured, defaults, scaled_by_speed=False))
    return tuple(prices.tolist())


_PRIOR_SCALE: Final = 0.2


def _fit(rows: Vector, measured: Vector, defaults: Vector, *, scaled_by_speed: bool) -> tuple[float, ...]:
    """Return the prices x ≥ 0 that minimise Σ (row·x/measured - 1)² + λ · Σ (x/(s·default) - 1)².

    λ is PRIOR_TRIALS · _PRIOR_SCALE², and s is 1. With `scaled_by_speed`, s is the geometric mean of measured to
    expected, where one more trial of ratio 1 is added as a prior.
    """
    positive = measured > 0
    rows, measured = rows[positive], measured[positive]
    if not len(measured):
        return tuple(defaults.tolist())
    start = defaults
    if scaled_by_speed:
        logs = np.log(measured / np.maximum(rows @ defaults, 1e-12))
        start = defaults * math.exp(float(logs.sum()) / (len(logs) + 1.0))
    from scipy.optimize import nnls  # takes a second to import, which most commands and pages do without

    relative = rows * start / measured[:, None]
    prior = math.sqrt(PRIOR_TRIALS) * np.eye(len(start)) * _PRIOR_SCALE
    prices, _ = nnls(np.vstack([relative, prior]), np.concatenate([np.ones(len(measured)), prior.diagonal()]))
    return tuple((prices * start).tolist())
