"""Pages, errors and deletions, which all resources share."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Resource(BaseModel):
    """Base of every response of the API."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Page(Resource, Generic[T]):
    """One page of a listing; pass the id of its last item as `after` to get the next one."""

    object: Literal["list"] = "list"
    data: tuple[T, ...]
    has_more: bool = False


class ErrorDetail(Resource):
    message: str = Field(description="what is wrong and what is expected, as text for people")
    type: str
    param: str | None = Field(description="the field or option at fault")
    code: str = Field(description="the class of the error, e.g. not_found")


class ErrorBody(Resource):
    error: ErrorDetail


class Deleted(Resource):
    id: str
    object: str
    deleted: Literal[True] = True
