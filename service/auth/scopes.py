"""Which scope each request needs, in one table.

The first rule that matches decides. Without a match, reading needs `read` and everything else `submit`, so that a new
route, or an unknown one, is never open to everybody by accident.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from luthier.keys import Scope

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
WRITING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
ALL: Final = READING | WRITING


class Rule(NamedTuple):
    """`*` in a path matches one segment; `**` at its end matches any number of segments, also none."""

    methods: frozenset[str]
    path: str
    scope: Scope | None  # None: open to everybody


RULES: Final = (
    # Health checks, the login and its style. /login itself asks for a key.
    Rule(READING, "/healthz", None),
    Rule(READING, "/readyz", None),
    Rule(ALL, "/login", None),
    Rule(READING, "/glossary", None),  # linked from the login page
    Rule(ALL, "/logout", None),
    Rule(READING, "/static/**", None),
    # The worker protocol. Blobs hold all rows and weights.
    Rule(READING, "/v1/workers", Scope.READ),
    Rule(READING, "/v1/workers/*", Scope.READ),
    Rule(ALL, "/v1/workers/**", Scope.WORKER),
    Rule(ALL, "/v1/trials/**", Scope.WORKER),
    Rule(ALL, "/v1/blobs/**", Scope.WORKER),
    Rule(ALL, "/v1/generations/**", Scope.WORKER),
    # Keys, webhook secrets, and paths of this machine's files.
    Rule(ALL, "/v1/keys/**", Scope.ADMIN),
    Rule(ALL, "/v1/webhook_endpoints/**", Scope.ADMIN),
    Rule(ALL, "/access/**", Scope.ADMIN),
    Rule(WRITING, "/v1/models/**", Scope.ADMIN),
    Rule(WRITING, "/models/**", Scope.ADMIN),
)


def scope_of(method: str, path: str) -> Scope | None:
    """Return the scope that a request needs; None if it is open to everybody. `path`: as the router sees it."""
    segments = path.split("/")
    for rule in RULES:
        if method in rule.methods and _matches(rule.path.split("/"), segments):
            return rule.scope
    return Scope.READ if method in READING else Scope.SUBMIT


def _matches(pattern: list[str], segments: list[str]) -> bool:
    if pattern[-1] == "**":
        pattern, segments = pattern[:-1], segments[: len(pattern) - 1]
    return len(pattern) == len(segments) and all(p in ("*", s) for p, s in zip(pattern, segments, strict=True))
