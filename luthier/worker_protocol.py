"""The messages between workers and the service over HTTP (`/v1/workers`, `/v1/trials/{id}/…`,
`/v1/generations/{id}/…`, `/v1/blobs`).

Every message that changes a trial carries the lease's `(owner, fence)`. On a response 409 `lease_lost`, the worker
drops the trial. Times are UTC. `device_seconds` are totals of the trial, so that repeating a message is harmless.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from luthier.design import Design, Frozen
from luthier.models.base_model import BaseModelEntry
from luthier.task import JudgeSpec
from luthier.trial import RUNGS, LogLine, Metrics, Point, RowScores, Sample, Usage


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
    """POST /v1/workers. A worker that returns under the same name gives up the leases that it held before."""

    name: str = Field(min_length=1, max_length=128)
    device: Device
    pid: int


class Welcome(Frozen):
    worker_id: str
    lease_seconds: float = Field(gt=0, description="a lease that is not renewed for so long is taken back")
    checkpoint_seconds: float = Field(gt=0, description="how much training time may be lost with a worker")
    poll_seconds: float = Field(gt=0, description="how long to wait before the next request when there is no work")
    generation_idle_seconds: float = Field(
        default=300.0, gt=0, description="how long a generation process stays without questions"
    )


class Artifact(Frozen):
    kind: Literal["adapter", "merged"]
    files: dict[str, str] = Field(description="path in the artifact → digest of the blob")
    bytes: int = Field(ge=0)


class Assignment(Frozen):
    """The response to POST /v1/workers/{id}/lease (204 when there is nothing to do)."""

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
        default=None, description="the rung to report at, where the trial may pause; None: train to the end"
    )
    device_seconds: float = Field(ge=0, description="device-seconds of the earlier leases of this trial")
    weights: Artifact | None = Field(
        default=None, description="for a champion, an earlier job's winner: its weights are scored; nothing is trained"
    )


class Claim(Frozen):
    """Base of all messages under a lease."""

    owner: str
    fence: int


class Heartbeat(Claim):
    device_seconds: float = Field(ge=0)
    points: tuple[Point, ...] = ()
    lines: tuple[LogLine, ...] = ()


class Directive(Frozen):
    """The response to a heartbeat. `stop`: the job has ended, its budget is spent, or a user stopped the trial, as
    `reason` says. `pause`: save a checkpoint and give the trial back as `waiting`; a trained trial is judged first."""

    action: Literal["continue", "stop", "pause"]
    reason: str | None = None
    expires_at: datetime


class CheckpointSaved(Claim):
    manifest: str = Field(description="digest of the manifest blob, a JSON object {file name: digest}")
    blobs: tuple[str, ...]
    stage: int
    step: int


class RungReached(Claim):
    """The trial reached a share of its full token budget. `metrics` are the judge's, on fewer rows."""

    rung: int = Field(ge=0, lt=len(RUNGS))
    share: float = Field(gt=0, le=1)
    stage: int
    step: int
    metrics: Metrics


class RungVerdict(Frozen):
    """The response to a rung. `pause`: save a checkpoint and give the trial back as `waiting`."""

    action: Literal["continue", "pause"]
    goal: int | None = Field(default=None, description="the next rung to report at; None: train to the end")


class Judged(Claim):
    """The validation score. The response says whether to keep the weights."""

    metrics: Metrics
    device_seconds: float = Field(ge=0)


class Keep(Frozen):
    keep: bool = Field(description="export the weights")
    test: bool = Field(description="score the test rows")


class Weights(Frozen):
    """What to load: a registered base model, or the saved weights of a trial. An adapter names its own base model."""

    base: BaseModelEntry | None = None
    artifact: Artifact | None = None


class Finished(Claim):
    """The end of a lease. `waiting` gives the trial back: it pauses at a rung, or the worker is shutting down."""

    outcome: Literal["complete", "failed", "infeasible", "cancelled", "waiting"]
    device_seconds: float = Field(ge=0)
    metrics: Metrics | None = None
    test_metrics: Metrics | None = None
    test_scores: RowScores | None = Field(default=None, description="scores of each test row, if they were scored")
    usage: Usage | None = None
    artifacts: tuple[Artifact, ...] = ()
    trained_tokens: int = Field(default=0, ge=0)
    error: str | None = None
    points: tuple[Point, ...] = ()
    lines: tuple[LogLine, ...] = ()
    samples: tuple[Sample, ...] = Field(default=(), description="answers to held-out prompts, if the weights are kept")


class Question(Frozen):
    """A question to a model: a conversation to answer, or a text to complete."""

    model: str = Field(description="the name in the request")
    weights: Weights
    messages: tuple[dict[str, Any], ...] | None = None
    prompt: str | None = Field(default=None, description="used as it is, without the chat template")
    max_tokens: int | None = Field(default=None, ge=1, description="None: what the model's context leaves")
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, ge=0, le=1)
    seed: int | None = None
    stop: tuple[str, ...] = Field(default=(), description="stop sequences; the answer ends before the first one")


class Refusal(Frozen):
    """An error of the tree in `luthier.errors`, which the service raises to the client."""

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
    """POST /v1/workers/{id}/generation: the worker is free to answer."""

    generates: str | None = Field(
        default=None, description="the model loaded in its generation process; None: it has no process"
    )


class Generation(Claim):
    """The response to an offer (204 when there is no question)."""

    id: str
    question: Question


class Said(Claim):
    """A piece of an answer. It renews the lease, also with an empty text; 409 `lease_lost` if no client waits for the
    answer any more."""

    position: int = Field(ge=0)
    text: str = ""


class Spoken(Claim):
    """The end of an answer. Without `answer`, the question is given back for another worker."""

    answer: Answered | None = None
