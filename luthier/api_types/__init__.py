"""The resources of the HTTP API, as the service writes them and the client reads them.

Resources that OpenAI's API has too (`FileObject`, `Job`, `Event`, `Model`, pages) have OpenAI's fields and meanings.
Luthier's additions are in the field `luthier` or in separate resources. Times are Unix seconds. The client ignores
fields that a newer service adds.
"""

from __future__ import annotations

from luthier.api_types.base import Deleted, ErrorBody, ErrorDetail, Page, Resource
from luthier.api_types.charts import (
    CurvePoints,
    Curves,
    Landscape,
    LandscapeAxis,
    RungMark,
    Span,
    Timeline,
    TrialCurve,
    Update,
    WorkerSpans,
)
from luthier.api_types.completions import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    Completion,
    CompletionChoice,
    CompletionUsage,
)
from luthier.api_types.designs import Axis, AxisChoice, CostParts, DesignEstimate, DesignSpace
from luthier.api_types.files import Dataset, DatasetRows, FileFacts, FileObject
from luthier.api_types.graders import GraderErrors, GraderMetadata, GraderRun, GraderValidation
from luthier.api_types.jobs import (
    Checkpoint,
    CheckpointFacts,
    CheckpointMetrics,
    CheckpointPage,
    Event,
    Expected,
    Hyperparameters,
    Job,
    JobFailure,
    Progress,
    Standing,
)
from luthier.api_types.keys import ApiKey, NewApiKey
from luthier.api_types.models import Environment, Model, Worker
from luthier.api_types.schedules import (
    Alias,
    AliasVersion,
    Schedule,
    ScheduleRun,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from luthier.api_types.trials import (
    Best,
    DesignWords,
    Recommendation,
    StageScore,
    Trial,
    TrialDetails,
    TrialLine,
    TrialSample,
)

__all__ = [
    "Alias",
    "AliasVersion",
    "ApiKey",
    "Axis",
    "AxisChoice",
    "Best",
    "ChatChoice",
    "ChatChunk",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatDelta",
    "ChatMessage",
    "Checkpoint",
    "CheckpointFacts",
    "CheckpointMetrics",
    "CheckpointPage",
    "Completion",
    "CompletionChoice",
    "CompletionUsage",
    "CostParts",
    "CurvePoints",
    "Curves",
    "Dataset",
    "DatasetRows",
    "Deleted",
    "DesignEstimate",
    "DesignSpace",
    "DesignWords",
    "Environment",
    "ErrorBody",
    "ErrorDetail",
    "Event",
    "Expected",
    "FileFacts",
    "FileObject",
    "GraderErrors",
    "GraderMetadata",
    "GraderRun",
    "GraderValidation",
    "Hyperparameters",
    "Job",
    "JobFailure",
    "Landscape",
    "LandscapeAxis",
    "Model",
    "NewApiKey",
    "Page",
    "Progress",
    "Recommendation",
    "Resource",
    "RungMark",
    "Schedule",
    "ScheduleRun",
    "Span",
    "StageScore",
    "Standing",
    "Timeline",
    "Trial",
    "TrialCurve",
    "TrialDetails",
    "TrialLine",
    "TrialSample",
    "Update",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookEvent",
    "Worker",
    "WorkerSpans",
]
