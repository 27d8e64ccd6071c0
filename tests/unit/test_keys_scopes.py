"""Which scope a request needs. The table is total: what it does not name needs one all the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.keys import Scope
from service.auth.scopes import ALL, READING, scope_of

EXPECTED = [
    ("GET /healthz", None),
    ("GET /readyz", None),
    ("GET /login", None),
    ("POST /login", None),
    ("POST /logout", None),
    ("GET /static/1a2b/style.css", None),
    ("POST /static/1a2b/style.css", "submit"),
    ("POST /healthz", "submit"),
    ("GET /", "read"),
    ("GET /docs", "read"),
    ("GET /openapi.json", "read"),
    ("GET /metrics", "read"),
    ("GET /jobs/ftjob-a", "read"),
    ("POST /jobs/ftjob-a/cancel", "submit"),
    ("GET /v1/files", "read"),
    ("HEAD /v1/files", "read"),
    ("POST /v1/files", "submit"),
    ("DELETE /v1/files/file-a", "submit"),
    ("GET /v1/fine_tuning/jobs/ftjob-a/events/stream", "read"),
    ("PATCH /v1/fine_tuning/jobs/ftjob-a", "submit"),
    ("POST /v1/chat/completions", "submit"),
    ("GET /v1/schedules", "read"),
    ("POST /v1/schedules/sched-a/run", "submit"),
    ("POST /v1/aliases", "submit"),
    ("GET /v1/models", "read"),
    ("POST /v1/models", "admin"),
    ("DELETE /v1/models/ft:tiny:luthier:1234", "admin"),
    ("DELETE /v1/models/a/b", "admin"),
    ("GET /models", "read"),
    ("POST /models", "admin"),
    ("GET /v1/keys", "admin"),
    ("POST /v1/keys", "admin"),
    ("DELETE /v1/keys/key-a", "admin"),
    ("GET /v1/webhook_endpoints", "admin"),
    ("GET /v1/webhook_endpoints/whe-a/deliveries", "admin"),
    ("GET /access", "admin"),
    ("GET /access/webhooks/whe-a", "admin"),
    ("GET /v1/workers", "read"),
    ("GET /v1/workers/worker-a", "read"),
    ("POST /v1/workers", "worker"),
    ("POST /v1/workers/worker-a/lease", "worker"),
    ("GET /v1/workers/worker-a/generation", "worker"),
    ("POST /v1/generations/gen-a/pieces", "worker"),
    ("POST /v1/trials/trial-a/finish", "worker"),
    ("PUT /v1/blobs", "worker"),
    ("GET /v1/blobs/abcd", "worker"),
    ("GET /no/such/route", "read"),
    ("PURGE /v1/files", "submit"),
    # What a router takes for another path is another path here as well.
    ("GET /static", None),
    ("GET /staticfiles", "read"),
    ("GET //healthz", "read"),
    ("GET /healthz/", "read"),
    ("GET /v1/keys/", "admin"),
]


@pytest.mark.parametrize(("request_line", "scope"), EXPECTED, ids=[line for line, _ in EXPECTED])
def test_a_request_needs_this_scope(request_line: str, scope: str | None) -> None:
    assert scope_of(*request_line.split()) == scope


@given(st.sampled_from([*ALL, "PURGE"]), st.lists(st.text(max_size=8), max_size=5).map("/".join))
def test_everything_below_the_api_needs_a_scope(method: str, rest: str) -> None:
    scope = scope_of(method, f"/v1/{rest}")
    assert scope is not None
    assert method in READING or scope is not Scope.READ
