"""API keys: their scopes, their format, and the digest that is stored.

A key is `luthier_`, 32 random characters, and a checksum of 6 characters. Only its HMAC is stored, and the secret of
the HMAC is not in the database. So a copy of the database gives no access to the service.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import string
import tempfile
import zlib
from enum import StrEnum
from pathlib import Path
from typing import Final

from luthier.errors import UserError
from luthier.settings import Settings

PREFIX: Final = "luthier_"
ALPHABET: Final = string.digits + string.ascii_letters
RANDOM: Final = 32  # characters: 190 bits
CHECKSUM: Final = 6  # characters hold any CRC-32
HINT: Final = len(PREFIX) + 4  # characters of a key that listings show


class Scope(StrEnum):
    """What a key allows. `submit` includes `read`, `admin` includes both; `worker` is for workers only."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"
    WORKER = "worker"

    def allows(self, needed: Scope) -> bool:
        return needed in _ALLOWED[self]


_ALLOWED: Final = {
    Scope.READ: {Scope.READ},
    Scope.SUBMIT: {Scope.READ, Scope.SUBMIT},
    Scope.ADMIN: {Scope.READ, Scope.SUBMIT, Scope.ADMIN},
    Scope.WORKER: {Scope.WORKER},
}


def mint() -> str:
    """Return a new random key."""
    chosen = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
    return PREFIX + chosen + _checksum(chosen)


def well_formed(text: str) -> bool:
    """Return whether the text has the format and checksum of a key, without reading the store."""
    chosen, checksum = text[len(PREFIX) : -CHECKSUM], text[-CHECKSUM:]
    return (
        text.startswith(PREFIX)
        and len(chosen) == RANDOM
        and set(chosen) <= set(ALPHABET)
        and checksum == _checksum(chosen)
    )


def hint(key: str) -> str:
    """Return the first characters of a key: enough to recognise it, too few to use it."""
    return key[:HINT] + "…"


def _checksum(chosen: str) -> str:
    rest, digits = zlib.crc32(chosen.encode()), ""
    for _ in range(CHECKSUM):
        rest, digit = divmod(rest, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


class Secret:
    """The secret of the service. `session` signs session cookies."""

    def __init__(self, value: bytes) -> None:
        self._of_keys = hmac.digest(value, b"keys", "sha256")
        self.session = hmac.digest(value, b"sessions", "sha256")

    def digest(self, key: str) -> str:
        """Return the HMAC of a key, which is what the store holds."""
        return hmac.new(self._of_keys, key.encode(), hashlib.sha256).hexdigest()


def secret_of(settings: Settings) -> Secret:
    """Return the secret from LUTHIER_SECRET, or from the file `secret` in the home, which is created if missing.

    Raises UserError if other users can read that file.
    """
    if settings.secret is not None:
        return Secret(settings.secret.get_secret_value().encode())
    path = settings.home_dir / "secret"
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        raise UserError(f"{path} signs the API keys, but other users can read it. Run: chmod 600 {path}")
    return Secret(path.read_bytes())


def _make(path: Path) -> None:
    """Create the file atomically, and never overwrite one: other processes may start at the same moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".secret-")  # readable by the owner only
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        Path(name).unlink()
