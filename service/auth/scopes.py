"""Which scope a request needs: the one table of it.

The first rule that fits decides. Where none does, reading needs `read` and all else `submit`, so that no route, be it
new or not there at all, is open by being forgotten.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from luthier.keys import Scope

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
WRITING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
ALL: Final = READING | WRITING


class Rule(NamedTuple):
    """`*` in a path stands for one segment, `**` at its end for any number of them, none included."""

    methods: frozenset[str]
    path: str
    scope: Scope | None  # None: for everybody


RULES: Final = (
    # Whatever watches over the service, the way in, and what its page looks like. The route of /login asks for a key.
    Rule(READING, "/healthz", None),
    Rule(READING, "/readyz", None),
    Rule(ALL, "/login", None),
    Rule(READING, "/glossary", None),  # linked from the login page
    Rule(ALL, "/logout", None),
    Rule(READING, "/static/**", None),
    # The protocol of the workers; their blobs hold everybody's rows and weights.
    Rule(READING, "/v1/workers", Scope.READ),
    Rule(READING, "/v1/workers/*", Scope.READ),
    Rule(ALL, "/v1/workers/**", Scope.WORKER),
    Rule(ALL, "/v1/trials/**", Scope.WORKER),
    Rule(ALL, "/v1/blobs/**", Scope.WORKER),
    Rule(ALL, "/v1/generations/**", Scope.WORKER),
    # Who may do what, where events are sent with a secret, and paths of this machine's files.
    Rule(ALL, "/v1/keys/**", Scope.ADMIN),
    Rule(ALL, "/v1/webhook_endpoints/**", Scope.ADMIN),
    Rule(ALL, "/access/**", Scope.ADMIN),
    Rule(WRITING, "/v1/models/**", Scope.ADMIN),
    Rule(WRITING, "/models/**", Scope.ADMIN),
)


def scope_of(method: str, path: str) -> Scope | None:
    """The scope that a request needs; None where everybody may make it. `path` as the router sees it."""
    segments = path.split("/")
    for rule in RULES:
        if method in rule.methods and _fits(rule.path.split("/"), segments):
            return rule.scope
    return Scope.READ if method in READING else Scope.SUBMIT


def _fits(pattern: list[str], segments: list[str]) -> bool:
    if pattern[-1] == "**":
        pattern, segments = pattern[:-1], segments[: len(pattern) - 1]
    return len(pattern) == len(segments) and all(p in ("*", s) for p, s in zip(pattern, segments, strict=True))
