"""What a design costs on a device, before anything runs: bytes, seconds, FLOPs.

`work` says what a trial does; here it is priced. A device's prices start as those of its kind (DEFAULTS) and move to
what finished trials show: non-negative least squares (Lawson & Hanson 1974) of relative errors, held to the defaults
as if these had been seen in a few trials themselves. What every trial has shown of the device's pace moves all prices
together first, so that the first finished trial already counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.optimize import nnls

from luthier.design import Design
from luthier.models.base_model import ModelFacts
from luthier.trial import Usage
from luthier.values import Frozen
from search.cost.flops import Kind
from search.cost.memory import Memory
from search.cost.trial_work import Plan, plan
from search.methods.amounts import Work, Workload

Vector = npt.NDArray[np.float64]

# Seconds for one unit of each kind of work. A CPU's are those of one thread of a server; CUDA's of a card like the
# A100 at the third of its peak that dense training reaches, whose kernels are launched one by one.
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
# Bytes for each byte that is counted: what the allocator adds, and what lives for a moment only.
MEMORY_DEFAULTS: Final[Mapping[Kind, Memory]] = {
    "cpu": Memory(4.7e8, 1.0, 1.0, 1.0, 1.0, 1.1, 4.0, 1.0, 1.3),
    "cuda": Memory(2e7, 1.0, 1.0, 1.0, 1.0, 1.2, 4.0, 1.0, 1.3),
    "mps": Memory(4.7e8, 1.0, 1.0, 1.0, 1.0, 1.2, 4.0, 1.0, 1.3),
}
CONTEXT: Final[Mapping[Kind, int]] = {"cpu": 0, "cuda": 10**9, "mps": 0}  # bytes that a driver takes for itself
PRIOR_TRIALS: Final = 2.0  # how many finished trials a default price outweighs
GENEROSITY: Final = 3.0  # an estimate without any finished trial may be wrong by 1 + this


class Seen(Frozen):
    """A trial: what it was, and what its last lease took."""

    design: Design
    facts: ModelFacts
    job: Workload
    usage: Usage
    seconds: float | None = Field(
        default=None, ge=0, description="of the whole trial; None where it had more than one lease"
    )
    ended: bool = Field(default=True, description="False where it paused at a rung: it never came to the last scoring")

    @property
    def even(self) -> bool:
        """Whether the steps made are like the others of the design: of several stages the first may be all that was."""
        return self.ended or len(self.design.stages) == 1


class Estimate(Frozen):
    """What a trial of a design is expected to take, from its lease to its export."""

    memory_bytes: int = Field(description="highest; on a CPU of the whole worker process")
    seconds: float
    tokens_per_second: float = Field(description="trained on, while training")
    flops: float = Field(description="of matrix products, in training")
    parameters: int
    trainable_parameters: int
    tokens: int = Field(description="trained on")
    steps: int = Field(description="of the optimiser")
    inference_flops: float = Field(description="for each token of an answer")
    feasible: bool
    why: str | None = Field(default=None, description="why not, with the numbers")
    memory_parts: dict[str, int] = Field(description="bytes by what holds them when most is held")
    seconds_parts: dict[str, float] = Field(description="training (without rollouts), rollouts, judging, other")
    calibrated_from: int = Field(description="finished trials on this kind of device; 0: defaults alone")


class Calibration(Frozen):
    """The prices of a device. Made by `calibrate`."""

    kind: Kind
    trials: int = Field(default=0, ge=0)
    seconds: tuple[float, ...] = Field(description="for each kind of work, in the order of `Work`")
    bytes: tuple[float, ...] = Field(description="for each that is counted, in the order of `Memory`")

    @classmethod
    def default(cls, kind: Kind) -> Self:
        return cls(kind=kind, seconds=tuple(DEFAULTS[kind]), bytes=tuple(MEMORY_DEFAULTS[kind]))

    @property
    def uncertainty(self) -> float:
        """By what factor a trial may take more or less, as far as is to be feared."""
        return 1.0 + GENEROSITY / (1.0 + self.trials)

    def price(self, work: Work) -> float:
        """Seconds."""
        return sum(price * amount for price, amount in zip(self.seconds, work, strict=True))

    def held(self, memory: Memory) -> dict[str, float]:
        """Bytes by what holds them."""
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
    """What a trial takes. It is feasible where it fits into so many bytes, and (with what the calibration may be wrong
    by) into so many seconds."""
    doing = plan(facts, design, job, calibration.kind)
    fullest = max((calibration.held(phase) for phase in doing.phases), key=lambda held: sum(held.values()))
    memory = sum(fullest.values()) + CONTEXT[calibration.kind]
    rollouts = calibration.price(doing.rollouts)
    training = calibration.price(doing.training)
    parts = {
        "training": training - rollouts,
        "rollouts": rollouts,
        "judging": calibration.price(doing.judging),
        "other": calibration.price(doing.other),
    }
    total = sum(parts.values())
    why = _why(memory, memory_bytes, total, seconds, calibration)
    return Estimate(
        memory_bytes=round(memory),
        seconds=total,
        tokens_per_second=doing.tokens / training if training else 0.0,
        flops=doing.training.flops,
        parameters=doing.parameters,
        trainable_parameters=doing.trainable,
        tokens=round(doing.tokens),
        steps=doing.steps,
        inference_flops=doing.inference.flops,
        feasible=why is None,
        why=why,
        memory_parts={name: round(held) for name, held in fullest.items() if held >= 1},
        seconds_parts=parts,
        calibrated_from=calibration.trials,
    )


def _why(
    memory: float, memory_bytes: float | None, seconds: float, most: float | None, calibration: Calibration
) -> str | None:
    if memory_bytes is not None and memory > memory_bytes:
        return f"it is expected to need {size(memory)} of memory, and there are {size(memory_bytes)}"
    if most is not None and seconds / calibration.uncertainty > most:
        return f"it is expected to take {seconds:.3g} s, and {max(0.0, most):.3g} s are left"
    return None


def size(memory: float) -> str:
    """Bytes as people say them."""
    return f"{memory / 2**30:.2f} GiB" if memory >= 2**30 else f"{memory / 2**20:.0f} MiB"


def calibrate(kind: Kind, seen: Sequence[Seen]) -> Calibration:
    """The prices that finished trials on devices of one kind show."""
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
    """Tokens that were trained on for each one expected, over trials of one dataset; 1 where none tells."""
    found: list[tuple[bool, float]] = []
    for each in seen:
        doing = plan(each.facts, each.design, each.job, "cpu")
        if each.even and each.usage.steps and doing.steps and each.usage.train_tokens:
            expected = doing.tokens * each.usage.steps / doing.steps
            found.append((doing.drawn > 0, each.usage.train_tokens / expected))
    least = min((drawn for drawn, _ in found), default=False)  # where answers are drawn their length is a guess as well
    ratios = [ratio for drawn, ratio in found if drawn == least]
    return float(np.median(ratios)) if ratios else 1.0


def _seconds(kind: Kind, seen: Sequence[Seen], plans: Sequence[Plan]) -> tuple[float, ...]:
    rows: list[Work] = []
    taken: list[float] = []
    for each, doing in zip(seen, plans, strict=True):
        usage = each.usage
        if each.even and usage.steps and doing.steps:
            rows.append(doing.training.times(usage.steps / doing.steps))
            taken.append(usage.train_seconds)
        if usage.judged_rows and doing.judged_rows:
            rows.append(doing.judging.times(usage.judged_rows / doing.judged_rows))
            taken.append(usage.judge_seconds)
        rest = None if each.seconds is None else each.seconds - usage.train_seconds - usage.judge_seconds
        if rest is not None and rest > 0:
            rows.append(doing.other)
            taken.append(rest)
    return _fit(np.array(rows, dtype=float), np.array(taken), np.array(DEFAULTS[kind]), paced=True)


def _bytes(kind: Kind, seen: Sequence[Seen], plans: Sequence[Plan]) -> tuple[float, ...]:
    """Which phase holds most depends on the prices, and these on the phase: two rounds settle it."""
    defaults = np.array(MEMORY_DEFAULTS[kind])
    whole = [(each, doing) for each, doing in zip(seen, plans, strict=True) if each.ended]
    if not whole:
        return MEMORY_DEFAULTS[kind]
    prices, taken = defaults, np.array([float(each.usage.peak_memory_bytes) for each, _ in whole])
    for _ in range(ROUNDS):
        rows = [max(doing.phases, key=lambda phase: float(prices @ np.array(phase))) for _, doing in whole]
        prices = np.array(_fit(np.array(rows, dtype=float), taken, defaults, paced=False))
    return tuple(prices.tolist())


ROUNDS: Final = 4


def _fit(rows: Vector, taken: Vector, defaults: Vector, *, paced: bool) -> tuple[float, ...]:
    """Prices x ≥ 0 that minimise Σ (row·x/taken - 1)² + PRIOR_TRIALS · Σ (x/(pace·default) - 1)².

    Everything is in units of the defaults. `paced` scales them by the pace first, of which one trial's worth is
    believed to be 1.
    """
    kept = taken > 0
    rows, taken = rows[kept], taken[kept]
    if not len(taken):
        return tuple(defaults.tolist())
    start = defaults
    if paced:
        logs = np.log(taken / np.maximum(rows @ defaults, 1e-12))
        start = defaults * math.exp(float(logs.sum()) / (len(logs) + 1.0))
    scaled = rows * start / taken[:, None]
    held = math.sqrt(PRIOR_TRIALS) * np.eye(len(start)) * _SHRINK
    prices, _ = nnls(np.vstack([scaled, held]), np.concatenate([np.ones(len(taken)), held.diagonal()]))
    return tuple((prices * start).tolist())


_SHRINK: Final = 0.2
