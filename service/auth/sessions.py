"""Who calls: API keys, and session cookies of users who logged in with one. `service.http.auth_gate` checks them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final, cast

from fastapi import Depends, Request
from itsdangerous import BadSignature, URLSafeTimedSerializer

from luthier.errors import NotFound, Unauthenticated
from luthier.keys import Scope, well_formed
from luthier.store import keys
from luthier.store.rows import KeyRecord
from service.context import Context

SESSION: Final = "luthier_session"  # the session cookie
SESSION_SECONDS: Final = 7 * 24 * 3600
USED_AT_EVERY: Final = timedelta(minutes=1)  # a key's last use is stored no more often


@dataclass(frozen=True, kw_only=True)
class Caller:
    """An admitted caller. Without a scope: the request is open to everybody."""

    id: str = ""
    name: str = ""
    scope: Scope | None = None
    logged_in: bool = False


ANYBODY: Final = Caller()
OWNER: Final = Caller(name="the user of this machine", scope=Scope.ADMIN)  # while no key is needed
LOCAL_WORKER: Final = Caller(id="local-worker", name="a worker of this service", scope=Scope.WORKER)


def _of_request(request: Request) -> Caller:
    return cast("Caller", request.state.caller)


Asking = Annotated[Caller, Depends(_of_request)]


def keys_needed(ctx: Context) -> bool:
    """Return whether requests need a key. Once a key was created they do, also after the last one is revoked."""
    if not ctx.settings.local_only:
        return True
    with ctx.database.read() as c:
        return keys.any_made(c)


def key_of(ctx: Context, given: str, now: datetime) -> KeyRecord:
    """Return the key that was sent. Raises Unauthenticated for an unknown, revoked or expired one."""
    if not well_formed(given):
        raise Unauthenticated("Not a valid API key. Check that you copied all of it.")
    with ctx.database.read() as c:
        record = keys.find(c, ctx.secret.digest(given))
    if record is None:
        raise Unauthenticated("This service does not know the API key.")
    return _live(ctx, record, now)


def session_of(ctx: Context, cookie: str, now: datetime) -> KeyRecord:
    """Return the key of a session. Raises Unauthenticated if the session or its key has ended."""
    try:
        key_id = _signer(ctx).loads(cookie, max_age=SESSION_SECONDS)
        with ctx.database.read() as c:
            record = keys.get(c, key_id)
    except (BadSignature, NotFound) as error:
        raise Unauthenticated("The session has ended. Log in again at /login.") from error
    return _live(ctx, record, now)


def session(ctx: Context, record: KeyRecord) -> str:
    """Return the session cookie of a login with this key. It ends with the key, or after a week."""
    return _signer(ctx).dumps(record.id)


def _signer(ctx: Context) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(ctx.secret.session, salt=SESSION)


def _live(ctx: Context, record: KeyRecord, now: datetime) -> KeyRecord:
    if not record.live(now):
        ended = "was revoked" if record.revoked_at is not None else "has expired"
        raise Unauthenticated(f"The API key {record.name} ({record.hint}) {ended}.")
    if record.used_at is None or now - record.used_at > USED_AT_EVERY:
        with ctx.database.begin() as c:
            keys.used(c, record.id, now)
    return record
