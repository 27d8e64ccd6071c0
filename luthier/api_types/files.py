"""Dataset files, their profiles and their rows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from luthier.api_types.base import Resource
from luthier.dataset import Profile
from luthier.task import DataKind


class FileFacts(Resource):
    kind: DataKind
    format: str = Field(description="the format that was recognised in the uploaded file")
    rows: int


class FileObject(Resource):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["fine-tune"] = "fine-tune"
    status: Literal["processed"] = "processed"
    expires_at: int | None = None
    luthier: FileFacts


class Dataset(Profile):
    """The profile of a file: statistics of its rows."""

    model_config = ConfigDict(extra="ignore")

    object: Literal["dataset"] = "dataset"
    file_id: str
    filename: str


class DatasetRows(Resource):
    """A page of a file's normalised rows."""

    object: Literal["list"] = "list"
    data: tuple[dict[str, Any], ...]
    first: int = Field(description="number of the first of these rows, counted from 1")
    total: int = Field(description="rows of the file, or rows that match `contains`")
    numbers: tuple[int, ...] = Field(description="numbers of these rows in the file, counted from 1")
    has_more: bool
