"""Designs by themselves: what they would take, and which there are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.api_types.base import ErrorDetail, Resource
from luthier.design import Design
from luthier.task import DataKind


class CostParts(Resource):
    memory: dict[str, int] = Field(description="bytes by what holds them when most is held")
    seconds: dict[str, float] = Field(description="training, rollouts, judging, other")


class DesignEstimate(Resource):
    """What a trial of a design is expected to take, from its lease to its export. Nothing was trained."""

    object: Literal["design.estimate"] = "design.estimate"
    design: Design
    summary: str = Field(description="the design in one line")
    device: str
    memory_bytes: int = Field(description="highest; on a CPU of the whole worker process")
    seconds: float
    tokens_per_second: float = Field(description="trained on, while training")
    flops: float = Field(description="of the training's matrix products")
    parameters: int
    trainable_parameters: int
    tokens: int = Field(description="trained on")
    steps: int = Field(description="of the optimiser")
    inference_flops: float = Field(description="for each token of an answer")
    feasible: bool = Field(description="whether it fits into the device's memory, and keeps to the job's constraints")
    why: str | None = Field(description="why not, with the numbers")
    parts: CostParts
    calibrated_from: int = Field(
        description="finished trials on this kind of device that set the prices; 0: defaults alone, which may be off "
        "by several times"
    )
    unchanged: DesignEstimate | None = Field(default=None, description="where a change was asked: without it")


class AxisChoice(Resource):
    """A member or a value of an axis: whether it can be asked for, and whether this request leaves it to be tried."""

    value: str | int | float
    about: str | None = None
    legal: bool = Field(description="whether it may be pinned for such data and models")
    why: str | None = Field(default=None, description="why not")
    searched: bool = Field(description="whether a job of this request tries it")


class Axis(Resource):
    name: str = Field(description="as in `search.pin`")
    choices: tuple[AxisChoice, ...] = ()
    low: float | None = Field(default=None, description="of a range that is searched whole")
    high: float | None = None
    pinned: bool = False
    takes: str | None = Field(default=None, description="what may be pinned besides, in words")


class DesignSpace(Resource):
    """What a request for a job would search, what else is legal, and why the rest is not. Nothing is queued."""

    object: Literal["design.space"] = "design.space"
    kind: DataKind
    family: Literal["decoder", "encoder"]
    rows: int = Field(description="to train on, about")
    axes: tuple[Axis, ...]
    problem: ErrorDetail | None = Field(description="why a job cannot be made of the request as it is")
    trainings: float = Field(description="whole trainings that the job is, about; most designs are stopped early")
    default: DesignEstimate | None = Field(description="what the plain LoRA default would take")
    device_seconds: float | None = Field(description="what the job would take in all, about")
    workers: int = Field(description="live ones, which share that")
