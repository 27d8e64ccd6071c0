"""Every route of the application, walked without a key and with each scope: none can be forgotten."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from luthier.keys import Scope
from luthier.settings import Settings
from service.app import create_app
from service.auth.api_keys import issue
from service.auth.scopes import scope_of
from service.schemas.requests import AddKey
from tests.integration.service_harness import Service, serving

# Whoever opens a route to everybody says so here too.
OPEN = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/login"),
    ("POST", "/login"),
    ("POST", "/logout"),
    ("GET", "/static/{version}/{name}"),
    ("GET", "/glossary"),
}


class Route(NamedTuple):
    method: str
    path: str

    @property
    def address(self) -> str:
        return re.sub(r"\{[^}]*\}", "x", self.path)


def routes(app: FastAPI) -> list[Route]:
    """Each method of each route, below routers and mounts too."""
    found = []
    for route in iter_route_contexts(app.routes):
        path = route.path or ""
        if isinstance(route.original_route, Mount):
            found.append(Route("GET", f"{path}/{{path}}"))
        found += [Route(method, path) for method in sorted(route.methods or ())]
    return found


ROUTES = routes(create_app(Settings()))
CLOSED = [route for route in ROUTES if route.method != "HEAD" and tuple(route) not in OPEN]


class Guarded(NamedTuple):
    service: Service
    keys: dict[Scope, str]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A service with a key of each scope."""
    with serving(tmp_path_factory.mktemp("walk"), requests_per_minute=100_000) as service:
        ctx = service.context
        with ctx.database.begin() as c:
            made = {s: issue(c, ctx.secret, AddKey(name=s, scope=s), datetime.now(UTC)).key for s in Scope}
        yield Guarded(service, made)


def status(http: httpx.Client, route: Route, key: str | None) -> int:
    """Only the status: some answers never end."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with http.stream(route.method, route.address, headers=headers) as answer:
        return answer.status_code


def test_the_walk_visits_every_route_that_is_described() -> None:
    described = {
        (method.upper(), path)
        for path, methods in create_app(Settings()).openapi()["paths"].items()
        for method in methods
    }
    assert described <= {(method, path.replace(":path}", "}")) for method, path in map(tuple, ROUTES)}
    assert ("GET", "/docs") in ROUTES


def test_only_these_routes_are_open_to_everybody() -> None:
    assert {route for route in ROUTES if scope_of(route.method, route.address) is None} == OPEN


@pytest.mark.parametrize("route", CLOSED, ids=" ".join)
def test_a_route_takes_no_request_without_a_key_and_none_with_the_wrong_scope(guarded: Guarded, route: Route) -> None:
    http = guarded.service.http
    assert status(http, route, None) == 401
    needed = scope_of(route.method, route.address)
    assert needed is not None
    for scope, key in guarded.keys.items():
        found = status(http, route, key)
        if scope.allows(needed):
            assert found not in (401, 403), f"a key of scope {scope} was refused"
        else:
            assert found == 403, f"a key of scope {scope} got in"


def test_what_is_no_route_is_not_told_to_those_without_a_key(guarded: Guarded) -> None:
    for path in ("/v1/nothing", "/nothing", "/v1/../v1/files", "//v1/files"):
        assert guarded.service.http.get(path).status_code == 401
