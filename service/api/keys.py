"""API keys, for callers with the scope `admin`. The first key is created by `luthier keys create`."""

from __future__ import annotations

from fastapi import APIRouter

from luthier.api_types import ApiKey, NewApiKey, Page
from service.auth import api_keys
from service.context import Ctx, utc_now
from service.schemas.params import KeyId
from service.schemas.requests import AddKey

router = APIRouter(prefix="/v1/keys", tags=["Keys"])


@router.get("", summary="List the keys")
def list_keys(ctx: Ctx) -> Page[ApiKey]:
    """Newest first, with revoked and expired ones. A key itself cannot be recovered from what is stored."""
    with ctx.database.read() as c:
        return Page(data=api_keys.listed(c))


@router.post("", summary="Create a key")
def create_key(ctx: Ctx, body: AddKey) -> NewApiKey:
    """Only this response contains the key itself. Once a key exists, every request needs one."""
    with ctx.database.begin() as c:
        return api_keys.issue(c, ctx.secret, body, utc_now())


@router.delete("/{key_id}", summary="Revoke a key")
def revoke_key(ctx: Ctx, key_id: KeyId) -> ApiKey:
    """The key stops working at once, and so do logins with it. Requests still need a key after the last one is
    revoked."""
    with ctx.database.begin() as c:
        return api_keys.revoke(c, key_id, utc_now())
