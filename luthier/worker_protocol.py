"""The HTTP protocol between workers and the service (`/v1/workers`, `/v1/trials/{id}/…`, `/v1/generations/{id}/…`,
`/v1/blobs`).

Every message that changes a trial carries the lease's `(owner, fence)`. On a response 409 `lease_lost` the worker drops
the trial. Times are UTC. `device_seconds` are totals for the trial, so sending one twice is harmless.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import Field

from luthier.design import Design
from luthier.models.base_model import BaseModelEntry
from luthier.task import JudgeSpec
from luthier.trial import FIRST_RUNG_ROWS, LogLine, Metrics, Point, RowScores, Sample, StageLength, Usage
from luthier.values import Frozen

MOST_RUNGS: Final = 32  # each lies three times as far as the one before, so that no training reaches this one


class Device(Frozen):
    """The device of a worker."""

    kind: Literal["cpu", "cuda", "mps"]
    name: str
    memory_bytes: int = Field(ge=0)
    threads: int = Field(default=1, ge=1)
    four_bit: bool = Field(
        default=False, description="whether base models can be loaded in 4 bits (CUDA and bitsandbytes)"
    )


class Hello(Frozen):
    """POST /v1/workers. A worker that registers again under its name loses its earlier leases."""

    name: str = Field(min_length=1, max_length=128)
    device: Device
    pid: int


class Welcome(Frozen):
    worker_id: str
    lease_seconds: float = Field(gt=0, description="a lease expires if not renewed for this long")
    checkpoint_seconds: float = Field(gt=0, description="least training time between two checkpoints")
    poll_seconds: float = Field(gt=0, description="how long an idle worker waits before it asks for work again")
    generation_idle_seconds: float = Field(
        default=300.0, gt=0, description="how long an idle generation process keeps running"
    )


class Artifact(Frozen):
    kind: Literal["adapter", "merged"]
    files: dict[str, str] = Field(description="path inside the artifact → digest of the blob")
    bytes: int = Field(ge=0)


class Assignment(Frozen):
    """The response to POST /v1/workers/{id}/lease (204 if there is no work)."""

    trial_id: str
    job_id: str
    number: int
    owner: str
    fence: int
    seed: int
    design: Design
    base: BaseModelEntry
    teacher: BaseModelEntry | None = Field(
        default=None, exclude_if=lambda teacher: teacher is None, description="the base model that a stage distils"
    )
    train: str = Field(description="digest of the training rows")
    judge: JudgeSpec
    checkpoint: str | None = Field(description="digest of a checkpoint manifest to resume from")
    goal: int | None = Field(
        default=None,
        description="next rung, where the service decides whether to continue; None: train to the end",
    )
    first_rung: int = Field(
        default=FIRST_RUNG_ROWS[0], ge=1, description="rows read before the first rung of a self-ending training"
    )
    device_seconds: float = Field(ge=0, description="used by earlier leases of this trial")
    wrap_up_at: float | None = Field(
        default=None,
        exclude_if=lambda seconds: seconds is None,
        description="as in Directive, until the first heartbeat; if it has passed, the training ends after one step",
    )
    weights: Artifact | None = Field(
        default=None, description="only for a champion (an earlier job's winner): weights to judge without training"
    )


class Claim(Frozen):
    """Base of every message sent under a lease."""

    owner: str
    fence: int


class Heartbeat(Claim):
    device_seconds: float = Field(ge=0)
    trained_tokens: int = Field(default=0, ge=0, description="in all leases of the trial so far")
    points: tuple[Point, ...] = ()
    lines: tuple[LogLine, ...] = ()


class Directive(Frozen):
    """The response to a heartbeat.

    `stop` carries the reason: the job was cancelled, or its budget is spent. `pause` means: save a checkpoint and
    return the trial as `waiting`. A trial whose training is done is judged and finished instead. `wrap_up` means: a
    training that has a result at every step ends now, with that of its best moment. The budget is nearly spent; or,
    with a reason, a user stopped the trial.
    """

    action: Literal["continue", "stop", "pause", "wrap_up"]
    wrap_up_at: float | None = Field(
        default=None, description="device-seconds of the trial from which it wraps up, without another heartbeat"
    )
    reason: str | None = None
    expires_at: datetime


class CheckpointSaved(Claim):
    manifest: str = Field(description="digest of the manifest blob, a JSON object {file name: digest}")
    blobs: tuple[str, ...]
    stage: int
    step: int


class RungReached(Claim):
    """The trial has reached a rung. `metrics` are the judge's, on fewer rows.

    A self-ending training reports the rung before which it ends, too, with `at_end`: it would score the same there.
    """

    rung: int = Field(ge=0, le=MOST_RUNGS)
    share: float = Field(gt=0, le=1, description="of the longest training that the design allows")
    stage: int
    step: int
    metrics: Metrics
    at_end: bool = Field(default=False, description="the training has ended, so the answer does not matter")


class RungVerdict(Frozen):
    """The response to a rung. `pause` means: save a checkpoint and return the trial as `waiting`."""

    action: Literal["continue", "pause"]
    goal: int | None = Field(default=None, description="the next rung; None: train to the end")


class Judged(Claim):
    """The validation score. The response says whether to export the weights."""

    metrics: Metrics
    device_seconds: float = Field(ge=0)


class Keep(Frozen):
    keep: bool = Field(description="export the weights")
    test: bool = Field(description="score the test rows")


class Weights(Frozen):
    """The weights that generate: a registered base model, or the artifact of a trial. An adapter names its own base."""

    base: BaseModelEntry | None = None
    artifact: Artifact | None = None


class Finished(Claim):
    """The end of a lease. `waiting` returns the trial: it pauses at a rung, or the worker is shutting down."""

    outcome: Literal["complete", "failed", "infeasible", "cancelled", "waiting"]
    device_seconds: float = Field(ge=0)
    metrics: Metrics | None = None
    test_metrics: Metrics | None = None
    test_scores: RowScores | None = Field(default=None, description="per test row, if they were scored")
    usage: Usage | None = None
    artifacts: tuple[Artifact, ...] = ()
    trained_tokens: int = Field(default=0, ge=0)
    lengths: tuple[StageLength, ...] = Field(default=(), description="of each stage, once all are trained")
    error: str | None = None
    points: tuple[Point, ...] = ()
    lines: tuple[LogLine, ...] = ()
    samples: tuple[Sample, ...] = Field(default=(), description="answers to held-out prompts, if weights are kept")


class Question(Frozen):
    """A generation request: a conversation to answer, or a text to continue."""

    model: str = Field(description="the model name of the request")
    weights: Weights
    messages: tuple[dict[str, Any], ...] | None = None
    prompt: str | None = Field(default=None, description="text to continue, without the chat template")
    max_tokens: int | None = Field(default=None, ge=1, description="None: up to the end of the model's context")
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, ge=0, le=1)
    seed: int | None = None
    stop: tuple[str, ...] = Field(default=(), description="stop sequences; the answer ends before the first one")


class Refusal(Frozen):
    """An error of `luthier.errors`, which the service raises again for the caller."""

    code: str
    message: str
    param: str | None = None


class Answered(Frozen):
    """How an answer ended, sent after its last piece."""

    finish_reason: Literal["stop", "length"] = "stop"
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    refusal: Refusal | None = None


class GenerationState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class Offer(Frozen):
    """POST /v1/workers/{id}/generation: the worker is free to answer a generation request."""

    generates: str | None = Field(default=None, description="the model loaded in its generation process, if any")


class Generation(Claim):
    """The response to an offer (204 if there is no request)."""

    id: str
    question: Question


class Said(Claim):
    """A piece of an answer, which may be empty. It renews the lease. The response is 409 `lease_lost` once the caller
    has gone away."""

    position: int = Field(ge=0)
    text: str = ""


class Spoken(Claim):
    """The end of an answer. With `answer` None the request goes to another worker."""

    answer: Answered | None = None
