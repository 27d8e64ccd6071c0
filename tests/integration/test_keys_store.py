"""Keys in the store, the same on SQLite and PostgreSQL."""

from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from luthier.errors import NotFound
from luthier.keys import Scope
from luthier.store import keys
from luthier.store.database import Database
from luthier.store.rows import KeyRecord
from tests.integration.store_samples import NOW

LATER = NOW + timedelta(days=1)


def record(name: str = "a", **changes: object) -> KeyRecord:
    given = {"id": f"key-{name}", "name": name, "scope": Scope.READ, "hint": "luthier_abcd…", "created_at": NOW}
    return KeyRecord.model_validate(given | changes)


def test_a_key_is_found_by_what_is_stored_of_it(database: Database) -> None:
    with database.begin() as c:
        assert not keys.any_made(c)
        keys.insert(c, record(expires_at=LATER), "digest")
        assert keys.any_made(c)
        assert keys.find(c, "digest") == keys.get(c, "key-a") == record(expires_at=LATER)
        assert keys.find(c, "another") is None
        with pytest.raises(NotFound, match="'key-b'"):
            keys.get(c, "key-b")


def test_keys_are_listed_newest_first(database: Database) -> None:
    with database.begin() as c:
        for name, made in (("a", NOW), ("b", LATER)):
            keys.insert(c, record(name, created_at=made), name)
        assert [key.name for key in keys.list_(c)] == ["b", "a"]


def test_a_revoked_key_stays_and_keeps_the_moment_when_it_was_revoked(database: Database) -> None:
    with database.begin() as c:
        keys.insert(c, record(), "digest")
        assert keys.revoke(c, "key-a", NOW).revoked_at == NOW
        assert keys.revoke(c, "key-a", LATER).revoked_at == NOW
        assert keys.any_made(c)
        with pytest.raises(NotFound):
            keys.revoke(c, "key-b", NOW)


def test_the_last_use_is_noted(database: Database) -> None:
    with database.begin() as c:
        keys.insert(c, record(), "digest")
        keys.used(c, "key-a", LATER)
        assert keys.get(c, "key-a").used_at == LATER


def test_two_keys_never_share_what_is_stored(database: Database) -> None:
    with database.begin() as c:
        keys.insert(c, record("a"), "digest")
    with pytest.raises(IntegrityError), database.begin() as c:
        keys.insert(c, record("b"), "digest")


def test_a_key_is_live_until_it_expires_or_is_revoked() -> None:
    assert record().live(LATER)
    assert record(expires_at=LATER).live(NOW)
    assert not record(expires_at=LATER).live(LATER)
    assert not record(revoked_at=NOW).live(NOW)
