"""Models, environments and workers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from luthier.api_types.base import Resource
from luthier.models.base_model import ModelFacts
from luthier.worker_protocol import Device


class Model(Resource):
    """A registered base model, or the result of a job."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "luthier"
    source: str | None = Field(default=None, description="the folder or hub id of a base model")
    facts: ModelFacts | None = None
    job: str | None = Field(default=None, description="the job that made a fine-tuned model")


class Environment(Resource):
    """An RL environment for `task.environment`: it makes the rows and scores the answers."""

    name: str
    object: Literal["environment"] = "environment"
    summary: str = Field(description="what the model has to do, in one line")
    options: dict[str, Any] = Field(description="the JSON schema of each option, with its default")


class Worker(Resource):
    id: str
    object: Literal["worker"] = "worker"
    name: str
    device: Device
    pid: int
    created_at: int
    last_seen_at: int
    live: bool
    generates: str | None = Field(default=None, description="the model that its generation process has loaded")
