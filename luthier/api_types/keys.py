"""API keys."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.api_types.base import Resource
from luthier.keys import Scope


class ApiKey(Resource):
    """An API key, without the secret text."""

    id: str
    object: Literal["key"] = "key"
    name: str
    scope: Scope = Field(description="`read` < `submit` < `admin`; `worker` is for workers only")
    hint: str = Field(description="first characters of the key")
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None = Field(description="time of the last request, to the minute")


class NewApiKey(ApiKey):
    key: str = Field(description="the key itself, returned only once")
