"""API keys. The store has only their HMACs. They are revoked, never deleted."""

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
    """Return a key. Raises NotFound."""
    row = c.execute(select(*_COLUMNS).where(_keys.c.id == key_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"key {key_id!r} was not found; `luthier keys list` lists the keys", param="key_id")
    return KeyRecord(**row)


def find(c: Connection, digest: str) -> KeyRecord | None:
    """Return the key with this HMAC, live or not, or None."""
    row = c.execute(select(*_COLUMNS).where(_keys.c.digest == digest)).mappings().one_or_none()
    return None if row is None else KeyRecord(**row)


def list_(c: Connection) -> list[KeyRecord]:
    """Return all keys, newest first, with revoked ones."""
    query = select(*_COLUMNS).order_by(_keys.c.created_at.desc(), _keys.c.id)
    return [KeyRecord(**row) for row in c.execute(query).mappings()]


def any_made(c: Connection) -> bool:
    """Return whether a key was ever created."""
    return bool(c.scalar(select(exists(select(_keys.c.id)))))


def revoke(c: Connection, key_id: str, now: datetime) -> KeyRecord:
    """Revoke a key; revoking it again changes nothing. Raises NotFound."""
    live = (_keys.c.id == key_id) & _keys.c.revoked_at.is_(None)
    c.execute(_keys.update().where(live).values(revoked_at=now))
    return get(c, key_id)


def used(c: Connection, key_id: str, now: datetime) -> None:
    c.execute(_keys.update().where(_keys.c.id == key_id).values(used_at=now))
