"""The page of keys and webhooks: who sees it, what stands there, and that no secret does."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import pytest

from luthier.keys import Scope
from tests.integration.service_harness import Service, serving, wait_until
from tests.integration.test_dash_pages import BROWSER
from tests.webhook_receiver import receiving

LINK = '<a href="/access"'


class Guarded(NamedTuple):
    service: Service
    keys: dict[Scope, str]


@pytest.fixture(scope="module")
def open_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("access-open")) as service:
        yield service


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A service with a key for each kind of person, the administrator's first."""
    with serving(tmp_path_factory.mktemp("access-guarded")) as service:
        found = {Scope.ADMIN: service.client.create_key("<b>boss</b>", Scope.ADMIN).key}
        with logged_in(service, found[Scope.ADMIN]) as http:
            for scope in (Scope.SUBMIT, Scope.READ):
                body = {"name": scope.value, "scope": scope.value}
                found[scope] = http.post("/v1/keys", json=body, headers={"origin": service.url}).json()["key"]
        yield Guarded(service, found)


@contextmanager
def logged_in(service: Service, key: str) -> Iterator[httpx.Client]:
    """As a browser is."""
    with httpx.Client(base_url=service.url, headers=BROWSER, follow_redirects=True) as http:
        assert http.post("/login", data={"key": key}).status_code == 200
        yield http


def test_without_keys_whoever_uses_the_machine_is_told_how_to_begin(open_service: Service) -> None:
    page = open_service.http.get("/access").text
    assert "No API keys yet" in page
    assert '<option value="admin" selected>' in page
    assert LINK in open_service.http.get("/").text


def test_only_administrators_find_and_see_the_page(guarded: Guarded) -> None:
    with logged_in(guarded.service, guarded.keys[Scope.ADMIN]) as http:
        assert LINK in http.get("/").text
        assert http.get("/access").status_code == 200
    for scope in (Scope.READ, Scope.SUBMIT):
        with logged_in(guarded.service, guarded.keys[scope]) as http:
            assert LINK not in http.get("/").text
            refused = http.get("/access")
            assert refused.status_code == 403
            assert "<code>admin</code>" in refused.text or "`admin`" in refused.text
            assert LINK not in refused.text
    assert LINK not in guarded.service.http.get("/login").text


def test_keys_are_listed_with_one_s_own_marked_and_without_any_key(guarded: Guarded) -> None:
    with logged_in(guarded.service, guarded.keys[Scope.ADMIN]) as http:
        old = http.post("/v1/keys", json={"name": "old"}, headers={"origin": guarded.service.url}).json()
        http.delete(f"/v1/keys/{old['id']}", headers={"origin": guarded.service.url})
        page = http.get("/access").text
        tables = [http.get(f"/access/keys.{form}") for form in ("csv", "json")]
    assert '&lt;b&gt;boss&lt;/b&gt; <span class="pill soft">yours</span>' in page
    assert page.count(">yours<") == 1
    assert "1 revoked or expired" in page
    assert '<option value="submit" selected>' in page
    assert [key["name"] for key in tables[1].json()] == ["old", "read", "submit", "<b>boss</b>"]
    for text in (page, *(table.text for table in tables)):
        assert not any(key in text for key in (*guarded.keys.values(), old["key"]))


def test_webhooks_are_listed_with_what_became_of_their_events(open_service: Service) -> None:
    client, http = open_service.client, open_service.http
    open_service.add_model()
    with receiving() as receiver:
        receiver.answers.append(410)
        made = client.create_webhook(f"{receiver.url}?<b>", ["fine_tuning.job.cancelled"])
        assert "none yet" in http.get("/access").text
        job_id = open_service.submit(search={"trials": 2})
        client.cancel(job_id)
        wait_until(lambda: client.webhook_deliveries(made.id)[0].state == "failed")
    listed, shown = http.get("/access").text, http.get(f"/access/webhooks/{made.id}").text
    for page in (listed, shown):
        assert "answered 410" in page
        assert "?&lt;b&gt;" in page
        assert str(made.secret) not in page
    assert f'href="/jobs/{job_id}"' in shown
    for table, column in (("webhooks", "url"), (f"webhooks/{made.id}/deliveries", "attempts")):
        assert column in http.get(f"/access/{table}.json").json()[0]
        csv = http.get(f"/access/{table}.csv").text
        assert column in csv.splitlines()[0].split(",")
        assert str(made.secret) not in csv
    client.delete_webhook(made.id)
    assert http.get(f"/access/webhooks/{made.id}", headers=BROWSER).status_code == 404
