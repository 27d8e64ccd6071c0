"""API keys, found by the HMAC that is all the store has of them. They are revoked, never deleted."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, exists, select

from luthier.errors import NotFound
from luthier.store import tables
from luthier.store.rows import KeyRecord

_keys = tables.keys
_COLUMNS = tuple(_keys.c[field] for field in KeyRecord.model_fields)


def insert(c: Connection, record: KeyRecord, digest: str) -> None:
    c.execute(_keys.insert().values(digest=digest, **dict(record)))


def get(c: Connection, key_id: str) -> KeyRecord:
    """Raises NotFound."""
    row = c.execute(select(*_COLUMNS).where(_keys.c.id == key_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no key {key_id!r}; `luthier keys list` shows those there are", param="key_id")
    return KeyRecord(**row)


def find(c: Connection, digest: str) -> KeyRecord | None:
    """The key with this HMAC, whether it is live or not."""
    row = c.execute(select(*_COLUMNS).where(_keys.c.digest == digest)).mappings().one_or_none()
    return None if row is None else KeyRecord(**row)


def list_(c: Connection) -> list[KeyRecord]:
    """Newest first, revoked ones too."""
    query = select(*_COLUMNS).order_by(_keys.c.created_at.desc(), _keys.c.id)
    return [KeyRecord(**row) for row in c.execute(query).mappings()]


def any_made(c: Connection) -> bool:
    """Whether there has ever been a key."""
    return bool(c.scalar(select(exists(select(_keys.c.id)))))


def revoke(c: Connection, key_id: str, now: datetime) -> KeyRecord:
    """Doing it again changes nothing. Raises NotFound."""
    live = (_keys.c.id == key_id) & _keys.c.revoked_at.is_(None)
    c.execute(_keys.update().where(live).values(revoked_at=now))
    return get(c, key_id)


def used(c: Connection, key_id: str, now: datetime) -> None:
    c.execute(_keys.update().where(_keys.c.id == key_id).values(used_at=now))
