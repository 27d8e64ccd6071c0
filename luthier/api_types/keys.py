"""API keys."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.api_types.base import Resource
from luthier.keys import Scope


class ApiKey(Resource):
    """A key, without the key itself."""

    id: str
    object: Literal["key"] = "key"
    name: str
    scope: Scope = Field(description="`read` < `submit` < `admin`; `worker` is for workers and nothing else")
    hint: str = Field(description="how the key begins")
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None = Field(description="to the minute")


class NewApiKey(ApiKey):
    key: str = Field(description="the key itself, shown this once")
