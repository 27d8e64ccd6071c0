"""Create, list and revoke API keys, for the API and for the command line, which opens the store itself."""

from __future__ import annotations

from datetime import datetime, timedelta

from luthier.api_types import ApiKey, NewApiKey
from luthier.keys import Secret, hint, mint
from luthier.store import Connection, keys
from luthier.store.rows import KeyRecord, new_id
from service.schemas.requests import AddKey


def issue(c: Connection, secret: Secret, request: AddKey, now: datetime) -> NewApiKey:
    """Create a key and store its HMAC. The key itself is only in the returned value."""
    key = mint()
    record = KeyRecord(
        id=new_id("key"),
        name=request.name,
        scope=request.scope,
        hint=hint(key),
        created_at=now,
        expires_at=None if request.days is None else now + timedelta(days=request.days),
    )
    keys.insert(c, record, secret.digest(key))
    return NewApiKey(**_view(record).model_dump(), key=key)


def listed(c: Connection) -> tuple[ApiKey, ...]:
    """Return all keys, newest first, with revoked and expired ones."""
    return tuple(map(_view, keys.list_(c)))


def revoke(c: Connection, key_id: str, now: datetime) -> ApiKey:
    """Revoke a key; revoking it again changes nothing. Raises NotFound."""
    return _view(keys.revoke(c, key_id, now))


def _view(record: KeyRecord) -> ApiKey:
    moments = {"expires_at": record.expires_at, "revoked_at": record.revoked_at, "last_used_at": record.used_at}
    return ApiKey(
        id=record.id,
        name=record.name,
        scope=record.scope,
        hint=record.hint,
        created_at=int(record.created_at.timestamp()),
        **{name: None if moment is None else int(moment.timestamp()) for name, moment in moments.items()},
    )
