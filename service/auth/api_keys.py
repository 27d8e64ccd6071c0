"""API keys made, listed and revoked: for the routes, and for the command line, which works on the store itself."""

from __future__ import annotations

from datetime import datetime, timedelta

from luthier.api_types import ApiKey, NewApiKey
from luthier.keys import Secret, hint, mint
from luthier.store import Connection, keys
from luthier.store.rows import KeyRecord, new_id
from service.results import serializers
from service.schemas.requests import AddKey


def issue(c: Connection, secret: Secret, wanted: AddKey, now: datetime) -> NewApiKey:
    """Make a key and store its HMAC."""
    key = mint()
    record = KeyRecord(
        id=new_id("key"),
        name=wanted.name,
        scope=wanted.scope,
        hint=hint(key),
        created_at=now,
        expires_at=None if wanted.days is None else now + timedelta(days=wanted.days),
    )
    keys.insert(c, record, secret.digest(key))
    return NewApiKey(**serializers.key(record).model_dump(), key=key)


def listed(c: Connection) -> tuple[ApiKey, ...]:
    """Newest first, revoked and expired ones too."""
    return tuple(map(serializers.key, keys.list_(c)))


def revoke(c: Connection, key_id: str, now: datetime) -> ApiKey:
    """Raises NotFound."""
    return serializers.key(keys.revoke(c, key_id, now))
