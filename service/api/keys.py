"""API keys over HTTP, for those who hold one of scope `admin`; the first one is made by `luthier keys create`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from luthier.api_types import ApiKey, NewApiKey, Page
from service.auth import api_keys
from service.context import Ctx, utc_now
from service.schemas.requests import AddKey

router = APIRouter(prefix="/v1/keys", tags=["Keys"])

KeyId = Annotated[str, Path(description="id of a key", examples=["key-03bd77"])]


@router.get("", summary="List the keys")
def list_keys(ctx: Ctx) -> Page[ApiKey]:
    """Newest first, revoked and expired ones too. Nothing that is stored can be turned back into a key."""
    with ctx.database.read() as c:
        return Page(data=api_keys.listed(c))


@router.post("", summary="Make a key")
def create_key(ctx: Ctx, body: AddKey) -> NewApiKey:
    """The answer is the only one that holds the key itself. From the first key on, every request needs one."""
    with ctx.database.begin() as c:
        return api_keys.issue(c, ctx.secret, body, utc_now())


@router.delete("/{key_id}", summary="Revoke a key")
def revoke_key(ctx: Ctx, key_id: KeyId) -> ApiKey:
    """It opens nothing from now on, and whoever logged in with it is logged out. Keys stay needed after the last."""
    with ctx.database.begin() as c:
        return api_keys.revoke(c, key_id, utc_now())
