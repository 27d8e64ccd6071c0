"""Cost estimates of designs, and the design space."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.api_types.base import ErrorDetail, Resource
from luthier.api_types.jobs import Expected
from luthier.design import Design
from luthier.task import DataKind


class CostParts(Resource):
    memory: dict[str, int] = Field(description="bytes at peak memory, by what they hold")
    seconds: dict[str, float] = Field(description="seconds of training, rollouts, judging and other")


class DesignEstimate(Resource):
    """Estimated memory and time of a trial of a design, from lease to export. Nothing is trained."""

    object: Literal["design.estimate"] = "design.estimate"
    design: Design
    summary: str = Field(description="the design in one line")
    device: str
    memory_bytes: int = Field(description="peak memory; on a CPU that of the whole worker process")
    seconds: float
    tokens_per_second: float = Field(description="training throughput")
    flops: float = Field(description="FLOPs of the matrix products of training")
    parameters: int
    trainable_parameters: int
    tokens: int = Field(description="tokens to train on")
    steps: int = Field(description="optimiser steps")
    inference_flops: float = Field(description="FLOPs per generated token")
    feasible: bool = Field(description="whether the design fits the device's memory and the job's constraints")
    why: str | None = Field(description="why it is not feasible, with the numbers")
    parts: CostParts
    calibrated_from: int = Field(
        description="finished trials on this kind of device that calibrate the estimate; 0: defaults, which may be "
        "wrong by several times"
    )
    unchanged: DesignEstimate | None = Field(default=None, description="with `change`: the estimate without the change")


class AxisChoice(Resource):
    """One value of an axis: whether it is legal for the request, and whether the search would try it."""

    value: str | int | float
    about: str | None = None
    legal: bool = Field(description="whether it can be pinned for this data and these models")
    why: str | None = Field(default=None, description="why it is not legal")
    searched: bool = Field(description="whether the job would search it")


class Axis(Resource):
    name: str = Field(description="name in `search.pin`")
    choices: tuple[AxisChoice, ...] = ()
    low: float | None = Field(default=None, description="lower end of a continuous range")
    high: float | None = Field(default=None, description="upper end of a continuous range")
    pinned: bool = False
    takes: str | None = Field(default=None, description="other values that can be pinned, as text")


class DesignSpace(Resource):
    """What a job request would search, what else is legal, and why other values are not. No job is created."""

    object: Literal["design.space"] = "design.space"
    kind: DataKind
    family: Literal["decoder", "encoder"]
    rows: int = Field(description="approximate number of training rows")
    axes: tuple[Axis, ...]
    problem: ErrorDetail | None = Field(description="why the request cannot become a job")
    trainings: float = Field(
        description="approximate cost of the job in full training runs; most designs are stopped early"
    )
    default: DesignEstimate | None = Field(description="estimate of the plain LoRA default")
    device_seconds: float | None = Field(description="approximate cost of the whole job")
    expected: Expected | None = Field(default=None, description="what the budget is expected to buy")
    workers: int = Field(description="live workers, which share the cost")
    warnings: tuple[str, ...] = Field(default=(), description="what to mend before the job is created")
