"""API keys: what they allow, what they look like, and what is kept of them.

A key is `luthier_`, 32 random characters and 6 of checksum. Only its HMAC is stored, so that whoever reads the database
cannot use the service; the secret of the HMAC is not in the database.
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
    """What a key allows. `submit` includes `read`, and `admin` both; `worker` is for workers and nothing else."""

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
    """A fresh key."""
    chosen = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
    return PREFIX + chosen + _checksum(chosen)


def well_formed(text: str) -> bool:
    """Whether this can be a key at all: a mistyped or shortened one is told apart without a look into the store."""
    chosen, checksum = text[len(PREFIX) : -CHECKSUM], text[-CHECKSUM:]
    return (
        text.startswith(PREFIX)
        and len(chosen) == RANDOM
        and set(chosen) <= set(ALPHABET)
        and checksum == _checksum(chosen)
    )


def hint(key: str) -> str:
    """The beginning of a key, enough to tell it from others and too little to use it."""
    return key[:HINT] + "…"


def _checksum(chosen: str) -> str:
    rest, digits = zlib.crc32(chosen.encode()), ""
    for _ in range(CHECKSUM):
        rest, digit = divmod(rest, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


class Secret:
    """What only the service knows. `session` signs the cookies of those who logged in."""

    def __init__(self, value: bytes) -> None:
        self._of_keys = hmac.digest(value, b"keys", "sha256")
        self.session = hmac.digest(value, b"sessions", "sha256")

    def digest(self, key: str) -> str:
        """What is stored of a key."""
        return hmac.new(self._of_keys, key.encode(), hashlib.sha256).hexdigest()


def secret_of(settings: Settings) -> Secret:
    """From LUTHIER_SECRET, or from the file `secret` in the home, which is made if need be.

    Raises UserError where others can read that file.
    """
    if settings.secret is not None:
        return Secret(settings.secret.get_secret_value().encode())
    path = settings.home_dir / "secret"
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        raise UserError(f"{path} signs the keys of this service and others can read it: chmod 600 {path}")
    return Secret(path.read_bytes())


def _make(path: Path) -> None:
    """Whole or not at all, and never over one that is there: other processes may start at the same moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".secret-")  # readable by the owner alone
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        Path(name).unlink()
