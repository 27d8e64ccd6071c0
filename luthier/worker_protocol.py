"""What a worker and the service say to each other over HTTP (`/v1/workers`, `/v1/trials/{id}/…`,
`/v1/generations/{id}/…`, `/v1/blobs`).

Every message that changes a trial carries the lease's `(owner, fence)`; the answer 409 `lease_lost` tells the worker to
drop what it was doing. Times are UTC; `device_seconds` are totals for the trial, so that sending one twice is harmless.
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
    """What a worker computes on."""

    kind: Literal["cpu", "cuda", "mps"]
    name: str
    memory_bytes: int = Field(ge=0)
    threads: int = Field(default=1, ge=1)
    four_bit: bool = Field(default=False, description="whether bases can be held in four bits: CUDA and bitsandbytes")


class Hello(Frozen):
    """POST /v1/workers. A worker that comes back under its old name gives up the leases it held before."""

    name: str = Field(min_length=1, max_length=128)
    device: Device
    pid: int


class Welcome(Frozen):
    worker_id: str
    lease_seconds: float = Field(gt=0, description="a lease not renewed for so long is taken back")
    checkpoint_seconds: float = Field(gt=0, description="how much training time a lost worker may cost")
    poll_seconds: float = Field(gt=0, description="how long to wait before asking again when there is no work")
    generation_idle_seconds: float = Field(
        default=300.0, gt=0, description="how long a generation process stays when nobody asks"
    )


class Artifact(Frozen):
    kind: Literal["adapter", "merged"]
    files: dict[str, str] = Field(description="path inside the artifact → digest of the blob")
    bytes: int = Field(ge=0)


class Assignment(Frozen):
    """The answer to POST /v1/workers/{id}/lease (204 when there is nothing to do)."""

    trial_id: str
    job_id: str
    number: int
    owner: str
    fence: int
    seed: int
    design: Design
    base: BaseModelEntry
    train: str = Field(description="digest of the training rows")
    judge: JudgeSpec
    checkpoint: str | None = Field(description="digest of a checkpoint manifest to resume from")
    goal: int | None = Field(
        default=None, description="the rung at which to ask whether to go on; None: train to the end"
    )
    device_seconds: float = Field(ge=0, description="what earlier leases of this trial have used")
    weights: Artifact | None = Field(
        default=None, description="of a champion, an earlier job's winner: what is judged as it is; nothing is trained"
    )


class Claim(Frozen):
    """Base of everything said under a lease."""

    owner: str
    fence: int


class Heartbeat(Claim):
    device_seconds: float = Field(ge=0)
    points: tuple[Point, ...] = ()
    lines: tuple[LogLine, ...] = ()


class Directive(Frozen):
    """The answer to a heartbeat. `stop` carries the reason: the job was cancelled, or its budget is spent. `pause`: the
    trial is given back as `waiting`, with a checkpoint; one that is trained to its end is judged and finished first."""

    action: Literal["continue", "stop", "pause"]
    reason: str | None = None
    expires_at: datetime


class CheckpointSaved(Claim):
    manifest: str = Field(description="digest of the manifest blob, a JSON object {file name: digest}")
    blobs: tuple[str, ...]
    stage: int
    step: int


class RungReached(Claim):
    """The trial stands at a share of its full token budget. `metrics` are the judge's, of fewer rows."""

    rung: int = Field(ge=0, lt=len(RUNGS))
    share: float = Field(gt=0, le=1)
    stage: int
    step: int
    metrics: Metrics


class RungVerdict(Frozen):
    """The answer to a rung. `pause`: save a checkpoint and give the trial back as `waiting`."""

    action: Literal["continue", "pause"]
    goal: int | None = Field(default=None, description="the next rung to ask at; None: train to the end")


class Judged(Claim):
    """The validation score; the answer says whether the weights are worth keeping."""

    metrics: Metrics
    device_seconds: float = Field(ge=0)


class Keep(Frozen):
    keep: bool = Field(description="export the weights")
    test: bool = Field(description="score the test rows")


class Weights(Frozen):
    """What answers: a base model as it is registered, or what a trial has left. An adapter says itself which base it is
    for."""

    base: BaseModelEntry | None = None
    artifact: Artifact | None = None


class Finished(Claim):
    """The end of a lease. `waiting` hands the trial back: it pauses at a rung, or the worker is shutting down."""

    outcome: Literal["complete", "failed", "infeasible", "cancelled", "waiting"]
    device_seconds: float = Field(ge=0)
    metrics: Metrics | None = None
    test_metrics: Metrics | None = None
    test_scores: RowScores | None = Field(default=None, description="of each test row, where they were scored")
    usage: Usage | None = None
    artifacts: tuple[Artifact, ...] = ()
    trained_tokens: int = Field(default=0, ge=0)
    error: str | None = None
    points: tuple[Point, ...] = ()
    lines: tuple[LogLine, ...] = ()
    samples: tuple[Sample, ...] = Field(default=(), description="answers to held-out prompts, where weights are kept")


class Question(Frozen):
    """What a model is asked: a conversation to answer, or a text to continue."""

    model: str = Field(description="as it was asked for")
    weights: Weights
    messages: tuple[dict[str, Any], ...] | None = None
    prompt: str | None = Field(default=None, description="continued as it stands, without the chat template")
    max_tokens: int | None = Field(default=None, ge=1, description="None: as many as the model's context leaves")
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, ge=0, le=1)
    seed: int | None = None
    stop: tuple[str, ...] = Field(default=(), description="the answer ends before the first of these")


class Refusal(Frozen):
    """An error of the tree in `luthier.errors`, to be raised again where the question came from."""

    code: str
    message: str
    param: str | None = None


class Answered(Frozen):
    """How an answer ended, after its last piece."""

    finish_reason: Literal["stop", "length"] = "stop"
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    refusal: Refusal | None = None


class GenerationState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class Offer(Frozen):
    """POST /v1/workers/{id}/generation: the worker has nobody to answer now."""

    generates: str | None = Field(default=None, description="the model in its generation process; None: it has none")


class Generation(Claim):
    """The answer to an offer (204 when nobody asks)."""

    id: str
    question: Question


class Said(Claim):
    """A piece of an answer. It renews the lease, also where there is nothing new to say; 409 `lease_lost` where nobody
    wants the answer any more."""

    position: int = Field(ge=0)
    text: str = ""


class Spoken(Claim):
    """The end of an answer. Without one the question is given back for another worker."""

    answer: Answered | None = None
