"""The tables, and column types that return the same values from SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

from luthier.design import Design
from luthier.keys import Scope
from luthier.models.base_model import ModelFacts
from luthier.schedule import CatchUp, Contest, Overlap, RunState
from luthier.task import Constraints, DataKind, Extension, JudgeSpec, Resplit, Search, Task, TruncatedRows
from luthier.trial import JobState, Metrics, RowScores, Sample, StageLength, TrialState, Usage
from luthier.worker_protocol import Answered, Device, GenerationState, Question


class Utc(TypeDecorator[datetime]):
    """A time, always returned in UTC. SQLite has no time zones, and PostgreSQL uses the session's."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        assert value.tzinfo is not None, f"{value} has no time zone"
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Prose(TypeDecorator[str]):
    """Text from people and programs. PostgreSQL cannot store NUL, so NUL is replaced on both databases."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.replace("\0", "\N{REPLACEMENT CHARACTER}")


class Document(TypeDecorator[Any]):
    """A pydantic value as JSON: stored as `model_dump(mode="json")`, validated when read."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._adapter: TypeAdapter[Any] = TypeAdapter(model)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else self._adapter.dump_python(value, mode="json")

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else self._adapter.validate_python(value)


def _state(states: type[StrEnum]) -> Enum:
    return Enum(states, native_enum=False, length=16, values_callable=lambda members: [m.value for m in members])


def _json() -> JSON:
    return JSON(none_as_null=True)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

files = Table(
    "files",
    metadata,
    Column("id", String, primary_key=True),
    Column("filename", Prose, nullable=False),
    Column("purpose", String, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("kind", _state(DataKind), nullable=False),
    Column("format", String, nullable=False),
    Column("raw", String, nullable=False, index=True),
    Column("rows", String, nullable=False, index=True),
    Column("profile", _json(), nullable=False),
    Index(None, "created_at", "id"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String, primary_key=True),
    Column("created_at", Utc, nullable=False),
    Column("started_at", Utc),
    Column("finished_at", Utc),
    Column("state", _state(JobState), nullable=False),
    Column("model", String),
    Column("method", _json()),
    Column("task", Document(Task), nullable=False),
    Column("search", Document(Search), nullable=False),
    Column("constraints", Document(Constraints), nullable=False),
    # Not foreign keys: a file may be deleted once no active job uses it, and old jobs keep its id.
    Column("training_file", String, nullable=False),
    Column("validation_file", String),
    Column("train", String, nullable=False),
    Column("judge", Document(JudgeSpec), nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("suffix", Prose),
    Column("metadata", _json(), nullable=False),
    Column("error", _json()),
    Column("best_trial_id", String),
    Column("fine_tuned_model", String),
    Column("trained_tokens", BigInteger),
    Column("notes", Prose, nullable=False),
    Column("tags", Document(tuple[str, ...]), nullable=False),
    # Not a foreign key: a schedule may be deleted, and its jobs stay.
    Column("schedule_id", String, index=True),
    Column("paused", Boolean, nullable=False),
    # Why its search started no more trials: a code of search.policy.scheduler.EndCode.
    Column("ended_reason", String(16)),
    Column("truncation", Document(tuple[TruncatedRows, ...])),
    Column("extensions", Document(tuple[Extension, ...]), nullable=False),
    Column("resplits", Document(tuple[Resplit, ...]), nullable=False),
    Index(None, "created_at", "id"),
    Index(None, "state", "created_at", "id"),
)

trials = Table(
    "trials",
    metadata,
    Column("id", String, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", _state(TrialState), nullable=False),
    Column("design", Document(Design), nullable=False),
    Column("digest", String, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("origin", String, nullable=False),
    Column("rung", Integer),
    Column("goal", Integer),
    Column("measured", Document(tuple[Metrics, ...]), nullable=False),
    Column("owner", String),
    Column("fence", Integer, nullable=False),
    Column("expires_at", Utc),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("started_at", Utc),
    Column("finished_at", Utc),
    Column("device_seconds", Double, nullable=False),
    Column("metrics", Document(Metrics)),
    Column("test_metrics", Document(Metrics)),
    Column("usage", Document(Usage)),
    Column("trained_tokens", BigInteger, nullable=False),
    Column("lengths", Document(tuple[StageLength, ...])),
    Column("checkpoint", String),
    Column("error", Prose),
    # The worker that ended the lease `fence`, so that a repeated report is recognised.
    Column("finished_by", String),
    # A user asked to stop it; its worker is signalled at the next heartbeat.
    Column("stopped", Boolean, nullable=False),
    # Of a champion: the trial of an earlier job that has its weights.
    Column("weights_of", String),
    UniqueConstraint("job_id", "number"),
    UniqueConstraint("job_id", "digest", "seed"),
    Index(None, "state", "job_id", "number"),
)

rungs = Table(
    "rungs",
    metadata,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("rung", Integer, primary_key=True, autoincrement=False),
    Column("share", Double, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("metrics", Document(Metrics), nullable=False),
    Column("at", Utc, nullable=False),
)

test_scores = Table(
    "test_scores",
    metadata,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("scores", Document(RowScores), nullable=False),
)

points = Table(
    "points",
    metadata,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("stage", Integer, primary_key=True, autoincrement=False),
    Column("name", String, primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("value", Double, nullable=False),
    Column("at", Utc, nullable=False),
)

checkpoint_blobs = Table(
    "checkpoint_blobs",
    metadata,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("digest", String, primary_key=True, index=True),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("kind", String, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)

artifact_files = Table(
    "artifact_files",
    metadata,
    Column("trial_id", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("path", String, primary_key=True),
    Column("digest", String, nullable=False, index=True),
    ForeignKeyConstraint(["trial_id", "kind"], ["artifacts.trial_id", "artifacts.kind"], ondelete="CASCADE"),
)

events = Table(
    "events",
    metadata,
    # Many events have the same time: they are ordered by when they were written.
    Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("level", String, nullable=False),
    Column("type", String, nullable=False),
    Column("message", Prose, nullable=False),
    Column("data", _json()),
    Index(None, "job_id", "position"),
)

models = Table(
    "models",
    metadata,
    Column("name", String, primary_key=True),
    Column("source", Prose, nullable=False),
    Column("facts", Document(ModelFacts), nullable=False),
    Column("added_at", Utc, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("device", Document(Device), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("seen_at", Utc, nullable=False),
    # The model that its generation process has loaded, if any.
    Column("generates", String),
)

generations = Table(
    "generations",
    metadata,
    Column("id", String, primary_key=True),
    Column("created_at", Utc, nullable=False),
    Column("question", Document(Question), nullable=False),
    Column("state", _state(GenerationState), nullable=False),
    Column("owner", String),
    Column("fence", Integer, nullable=False),
    Column("expires_at", Utc),
    Column("wanted_until", Utc, nullable=False),
    Column("said", Integer, nullable=False),
    Column("answer", Document(Answered)),
    Index(None, "state", "created_at"),
)

generation_pieces = Table(
    "generation_pieces",
    metadata,
    Column("generation_id", ForeignKey("generations.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("text", Prose, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", Prose, nullable=False, unique=True),
    Column("created_at", Utc, nullable=False),
    Column("cron", String, nullable=False),
    Column("time_zone", String, nullable=False),
    Column("job", _json(), nullable=False),
    Column("overlap", _state(Overlap), nullable=False),
    Column("misfire_grace_seconds", Double, nullable=False),
    Column("catch_up", _state(CatchUp), nullable=False),
    Column("catch_up_seconds", Double, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("alert_after", Integer, nullable=False),
    Column("alias", String),
    # The first tick that is not handled yet.
    Column("next_at", Utc),
    Column("failures", Integer, nullable=False),
    Index(None, "created_at", "id"),
    Index(None, "enabled", "next_at"),
)

schedule_runs = Table(
    "schedule_runs",
    metadata,
    Column("id", String, primary_key=True),
    Column("schedule_id", ForeignKey("schedules.id", ondelete="CASCADE"), nullable=False),
    Column("due_at", Utc, nullable=False),
    Column("trigger", String, nullable=False),
    Column("state", _state(RunState), nullable=False, index=True),
    Column("job_id", String, index=True),
    Column("reason", Prose),
    Column("contest", Document(Contest)),
    Column("created_at", Utc, nullable=False),
    Column("started_at", Utc),
    Column("ended_at", Utc),
    UniqueConstraint("schedule_id", "due_at"),
)

alias_versions = Table(
    "alias_versions",
    metadata,
    Column("name", String, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("model", String, nullable=False),
    Column("job_id", String, nullable=False),
    Column("trial_id", String, nullable=False),
    # The version that a roll-back from here goes to.
    Column("before", Integer),
    Column("origin", String, nullable=False),
    Column("contest", Document(Contest)),
    Column("created_at", Utc, nullable=False),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", String, primary_key=True),
    Column("url", Prose, nullable=False),
    Column("events", _json(), nullable=False),
    Column("secret", String, nullable=False),
    Column("created_at", Utc, nullable=False),
    Index(None, "created_at", "id"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", String, primary_key=True),
    Column("endpoint_id", ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", String, nullable=False),
    Column("type", String, nullable=False),
    # Exactly the bytes that are signed and sent.
    Column("payload", Prose, nullable=False),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Utc),
    Column("status", Integer),
    Column("error", Prose),
    Column("created_at", Utc, nullable=False),
    Column("delivered_at", Utc),
    Index(None, "state", "next_at"),
    Index(None, "endpoint_id", "created_at", "id"),
)

log_lines = Table(
    "log_lines",
    metadata,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("lease", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Utc, nullable=False),
    Column("text", Prose, nullable=False),
)

samples = Table(
    "samples",
    metadata,
    Column("trial_id", ForeignKey("trials.id"), primary_key=True),
    Column("samples", Document(tuple[Sample, ...]), nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", Prose, nullable=False),
    Column("scope", _state(Scope), nullable=False),
    Column("hint", String, nullable=False),
    Column("digest", String, nullable=False, unique=True),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc),
    Column("revoked_at", Utc),
    Column("used_at", Utc),
)
