"""Path and query parameters that several routes and pages share."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Path, Query

from service.schemas.requests import Tag

STORABLE: Final = r"^[^\x00]*$"  # PostgreSQL accepts no NUL, not even in a comparison

After = Annotated[str | None, Query(description="id of the last entry of the previous page", max_length=200)]
Limit = Annotated[int, Query(description="entries on one page", ge=1, le=1000)]
Tags = Annotated[tuple[Tag, ...], Query(alias="tag", description="a tag that the jobs have; may be repeated")]
OfSchedule = Annotated[
    str | None, Query(description="id of the schedule that created the jobs", max_length=200, pattern=STORABLE)
]

AliasName = Annotated[str, Path(description="name of an alias, without `alias/`", examples=["support"])]
Digest = Annotated[str, Path(description="SHA-256 of the content, in hex")]
EndpointId = Annotated[str, Path(description="id of a webhook endpoint", examples=["whend-20c7aa"])]
FileId = Annotated[str, Path(description="id of an uploaded file", examples=["file-5f2ab0"])]
GenerationId = Annotated[str, Path(description="id of a completion request", examples=["chatcmpl-5f2a"])]
JobId = Annotated[str, Path(description="id of a fine-tuning job", examples=["ftjob-7c91d4"])]
KeyId = Annotated[str, Path(description="id of a key", examples=["key-03bd77"])]
LeasedTrialId = Annotated[str, Path(description="id of a leased trial", examples=["trial-03bd77"])]
ModelId = Annotated[str, Path(description="name of a base model or a fine-tuned model", examples=["tiny-chat"])]
ScheduleId = Annotated[str, Path(description="id of a schedule", examples=["sched-9c01f2"])]
TrialId = Annotated[str, Path(description="id of a trial, or its number in the job", examples=["trial-03bd77", "4"])]
