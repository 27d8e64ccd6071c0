"""Who is let in: by key, by the cookie of a login, or as this machine's own user while there are no keys."""

import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import httpx
import openai
import pytest
from openai import OpenAI

from luthier.client import Client
from luthier.errors import Forbidden, NotFound, TooManyRequests, Unauthenticated
from luthier.keys import Scope, mint
from luthier.store import keys
from service.auth.api_keys import issue
from service.auth.sessions import SESSION
from service.schemas.requests import AddKey
from tests.integration.service_harness import FakeWorker, Service, serving, sums

PAGE = {"Accept": "text/html,application/xhtml+xml"}
NOW = datetime.now(UTC)


class Guarded(NamedTuple):
    """A service that has keys, and one of scope admin."""

    service: Service
    admin: str

    def key(self, scope: Scope, **changes: object) -> str:
        return self.made(scope, **changes)[1]

    def made(self, scope: Scope, **changes: object) -> tuple[str, str]:
        """Id and key."""
        ctx = self.service.context
        with ctx.database.begin() as c:
            new = issue(c, ctx.secret, AddKey(name=f"a {scope} key", scope=scope, **changes), NOW)  # type: ignore[arg-type]
        return new.id, new.key

    def client(self, key: str) -> Client:
        return Client(self.service.url, api_key=key)

    def browser(self) -> httpx.Client:
        return httpx.Client(base_url=self.service.url, headers=PAGE | {"Origin": self.service.url})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with serving(tmp_path_factory.mktemp("gate"), attempts_per_minute=1000) as service:
        service.add_model()
        yield Guarded(service, service.client.create_key("the first", Scope.ADMIN).key)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_after_the_first_key_everybody_needs_one(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        assert service.client.jobs() == []
        made = service.client.create_key("me", Scope.ADMIN)
        with pytest.raises(Unauthenticated, match="LUTHIER_API_KEY"):
            service.client.jobs()
        with Client(service.url, api_key=made.key) as client:
            assert client.jobs() == []
            client.revoke_key(made.id)
            with pytest.raises(Unauthenticated, match=r"\bme \(luthier_....…\).*revoked"):
                client.jobs()
        with pytest.raises(Unauthenticated, match="LUTHIER_API_KEY"):  # not open again
            service.client.jobs()


def test_beyond_loopback_a_key_is_needed_before_there_is_one(tmp_path: Path) -> None:
    with serving(tmp_path, host="0.0.0.0") as service:
        with pytest.raises(Unauthenticated):
            service.client.models()
        assert service.http.get("/healthz").status_code == 200


def test_an_error_of_the_gate_has_openais_shape(guarded: Guarded) -> None:
    missing = guarded.service.http.get("/v1/files")
    assert missing.headers["WWW-Authenticate"] == "Bearer"
    error = missing.json()["error"]
    assert "LUTHIER_API_KEY" in error.pop("message")
    assert error == {"type": "invalid_request_error", "param": None, "code": "unauthenticated"}
    refused = guarded.service.http.post("/v1/files", headers=bearer(guarded.key(Scope.READ)))
    assert refused.status_code == 403
    error = refused.json()["error"]
    assert error["code"] == "forbidden"
    assert all(word in error["message"] for word in ("POST /v1/files", "`submit`", "`read`"))


def test_openais_client_sends_its_key(guarded: Guarded) -> None:
    base = f"{guarded.service.url}/v1"
    with OpenAI(base_url=base, api_key=guarded.key(Scope.READ), max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny-chat"]
        with pytest.raises(openai.PermissionDeniedError, match="`submit`"):
            client.files.create(file=("train.jsonl", b"{}"), purpose="fine-tune")
    with OpenAI(base_url=base, api_key="none", max_retries=0) as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("Bearer sk-1234", "Not a valid API key"),
        pytest.param(f"Bearer {mint()}", "does not know", id="unknown"),
        ("Basic dXNlcjpwYXNz", "'Basic'"),
        ("Bearer", "Not a valid API key"),
    ],
)
def test_a_wrong_key_is_told_what_is_wrong_with_it(guarded: Guarded, header: str, message: str) -> None:
    answer = guarded.service.http.get("/v1/files", headers={"Authorization": header})
    assert answer.status_code == 401
    assert message in answer.json()["error"]["message"]


def test_an_expired_key_opens_nothing(guarded: Guarded) -> None:
    key_id, key = guarded.made(Scope.READ, days=1)
    with guarded.client(key) as client:
        assert client.files() == []
        with guarded.service.context.database.begin() as c:
            before = keys.get(c, key_id)
            c.execute(keys._keys.update().where(keys._keys.c.id == key_id).values(expires_at=NOW - timedelta(days=1)))
        assert before.expires_at is not None
        with pytest.raises(Unauthenticated, match="expired"):
            client.files()


def test_a_listing_shows_when_a_key_was_last_used_and_never_the_key(guarded: Guarded) -> None:
    key_id, key = guarded.made(Scope.READ)
    with guarded.client(guarded.admin) as admin, guarded.client(key) as client:
        assert {one.id: one for one in admin.api_keys()}[key_id].last_used_at is None
        client.jobs()
        listed = {one.id: one for one in admin.api_keys()}[key_id]
        assert listed.last_used_at is not None
        assert key.startswith(listed.hint.rstrip("…"))
        assert key not in admin._http.get("/v1/keys").text
        with pytest.raises(NotFound, match="'key-no'"):
            admin.revoke_key("key-no")


def test_the_database_and_the_home_hold_no_key(guarded: Guarded) -> None:
    home = guarded.service.context.settings.home_dir
    stored = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert guarded.admin[:12].encode() in stored  # the hint, so that this looks in the right place
    assert guarded.admin.encode() not in stored
    assert guarded.admin[13:].encode() not in stored


def test_the_workers_of_the_process_have_a_key_that_opens_nothing_else(guarded: Guarded) -> None:
    key = guarded.service.app.state.worker_key
    with httpx.Client(base_url=guarded.service.url, headers=bearer(key)) as http:
        FakeWorker(http).register()
        assert http.get("/v1/files").status_code == 403
    with guarded.client(guarded.admin) as admin, pytest.raises(Forbidden, match="`worker`"):
        admin._send("POST", "/v1/workers/x/lease")


def test_a_job_runs_with_a_key_for_the_user_and_one_for_the_worker(guarded: Guarded) -> None:
    with (
        guarded.client(guarded.key(Scope.SUBMIT)) as client,
        httpx.Client(base_url=guarded.service.url, headers=bearer(guarded.key(Scope.WORKER))) as http,
    ):
        content = "".join(json.dumps(row) + "\n" for row in sums())
        file = client.upload_stream(BytesIO(content.encode()), "train.jsonl")
        job = client.create_job(file.id, search={"trials": 2, "confirmations": 0})
        worker = FakeWorker(http)
        worker.register()
        assert worker.work_until_ended(client, job.id) == "succeeded"


# Limits


def test_a_key_may_make_so_many_requests_a_minute_and_workers_as_many_as_they_need(tmp_path: Path) -> None:
    with serving(tmp_path, requests_per_minute=5) as service:
        ctx = Guarded(service, "")
        one, other, worker = ctx.key(Scope.READ), ctx.key(Scope.READ), ctx.key(Scope.WORKER)
        found = [service.http.get("/v1/files", headers=bearer(one)) for _ in range(7)]
        assert [answer.status_code for answer in found] == [200] * 5 + [429] * 2
        assert 1 <= int(found[-1].headers["Retry-After"]) <= 60
        assert found[-1].json()["error"]["code"] == "too_many_requests"
        with ctx.client(one) as client, pytest.raises(TooManyRequests, match=r"\b5 requests"):
            client.files()
        assert service.http.get("/v1/files", headers=bearer(other)).status_code == 200
        for _ in range(10):
            assert service.http.get("/v1/blobs/x", headers=bearer(worker)).status_code == 404
        assert service.http.get("/healthz").status_code == 200


def test_guessing_is_slowed_down_and_good_keys_from_that_address_are_not(tmp_path: Path) -> None:
    with serving(tmp_path, attempts_per_minute=3) as service:
        good = Guarded(service, "").key(Scope.READ)
        guesses = [service.http.get("/v1/files", headers=bearer(mint())).status_code for _ in range(5)]
        assert guesses == [401, 401, 401, 429, 429]
        login = service.http.post("/login", data={"key": good})
        assert login.status_code == 429
        assert service.http.get("/v1/files", headers=bearer(good)).status_code == 200


def test_the_body_of_an_unknown_sender_is_not_waited_for(guarded: Guarded) -> None:
    with socket.create_connection(("127.0.0.1", httpx.URL(guarded.service.url).port), timeout=30) as line:
        line.sendall(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nsome of it")
        assert line.recv(100).startswith(b"HTTP/1.1 401")


# Other sites and other names


def test_without_keys_the_service_answers_to_its_own_names_alone(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        for host in ("evil.example", "evil.example:8420", "127.0.0.1.evil.example", "localhost.evil", ""):
            answer = service.http.get("/v1/files", headers={"Host": host})
            assert answer.status_code == 403, host
            assert answer.json()["error"]["code"] == "forbidden"
        for own in ("localhost", "127.0.0.1:9999", "[::1]:8420"):
            assert service.http.get("/v1/files", headers={"Host": own}).status_code == 200, own


def test_without_keys_nobody_comes_in_by_a_proxy(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        answer = service.http.get("/v1/files", headers={"X-Forwarded-For": "10.0.0.7"})
        assert answer.status_code == 403
        assert "10.0.0.7" in answer.json()["error"]["message"]
        key = service.client.create_key("me").key
        assert service.http.get("/v1/files", headers={"X-Forwarded-For": "10.0.0.7"} | bearer(key)).status_code == 200


def test_without_keys_no_page_of_another_site_may_act(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://["):
            answer = service.http.post("/v1/keys", json={"name": "mine"}, headers={"Origin": origin})
            assert answer.status_code == 403, origin
        assert service.client.api_keys() == []
        own = service.http.post("/v1/designs/estimate", json={}, headers={"Origin": service.url})
        assert own.status_code != 403


def test_the_host_cannot_lend_a_request_another_path(guarded: Guarded) -> None:
    """A Host such as `a/healthz?` would turn up in an address that is put together from it."""
    with socket.create_connection(("127.0.0.1", httpx.URL(guarded.service.url).port)) as line:
        line.sendall(b"GET /v1/files HTTP/1.1\r\nHost: a/healthz?\r\nConnection: close\r\n\r\n")
        assert re.match(rb"HTTP/1.1 (401|400)", line.recv(100))


# The dashboard


def test_a_browser_logs_in_with_a_key_and_out_again(guarded: Guarded) -> None:
    with guarded.browser() as browser:
        turned = browser.get("/?after=x&limit=2")
        assert (turned.status_code, turned.headers["Location"]) == (303, "/login?next=%2F%3Fafter%3Dx%26limit%3D2")
        form = browser.get(turned.headers["Location"])
        assert form.status_code == 200
        assert 'name="next" value="/?after=x&amp;limit=2"' in form.text

        wrong = browser.post("/login", data={"key": mint(), "next": "/"})
        assert wrong.status_code == 401
        assert "does not know" in wrong.text
        assert SESSION not in browser.cookies

        entered = browser.post("/login", data={"key": f" {guarded.key(Scope.READ)} ", "next": "/?limit=2"})
        assert (entered.status_code, entered.headers["Location"]) == (303, "/?limit=2")
        cookie = entered.headers["Set-Cookie"]
        assert re.search(rf"{SESSION}=.+; HttpOnly; Max-Age=604800; Path=/; SameSite=strict$", cookie)
        page = browser.get("/")
        assert page.status_code == 200
        assert "Log out" in page.text
        assert browser.get("/v1/files").status_code == 200

        left = browser.post("/logout")
        assert (left.status_code, left.headers["Location"]) == (303, "/login")
        assert SESSION not in browser.cookies
        assert browser.get("/").status_code == 303


def test_a_login_allows_what_its_key_allows_and_ends_with_it(guarded: Guarded) -> None:
    key_id, key = guarded.made(Scope.READ)
    with guarded.browser() as browser:
        browser.post("/login", data={"key": key})
        refused = browser.post("/v1/models", json={})
        assert refused.status_code == 403
        page = browser.post("/models")
        assert (page.status_code, page.headers["Content-Type"]) == (403, "text/html; charset=utf-8")
        assert "`admin`" in page.text
        with guarded.client(guarded.admin) as admin:
            admin.revoke_key(key_id)
        assert browser.get("/v1/files").status_code == 401
        assert browser.get("/").status_code == 303


def test_a_logged_in_browser_acts_only_from_the_services_own_pages(guarded: Guarded) -> None:
    with guarded.browser() as browser:
        browser.post("/login", data={"key": guarded.key(Scope.SUBMIT)})
        body = {"grader": {"type": "number"}}
        act = "/v1/fine_tuning/alpha/graders/validate"
        assert browser.post(act, json=body).status_code == 200
        assert browser.post(act, json=body, headers={"Origin": "https://evil.example"}).status_code == 403
        assert browser.post(act, json=body, headers={"Origin": "null"}).status_code == 403
        del browser.headers["Origin"]
        assert browser.post(act, json=body).status_code == 403
        assert browser.post(act, json=body, headers={"Sec-Fetch-Site": "same-site"}).status_code == 403
        assert browser.post(act, json=body, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_a_forged_or_outdated_cookie_is_no_login(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded.browser() as browser:
        browser.post("/login", data={"key": guarded.key(Scope.READ)})
        cookie = browser.cookies[SESSION]
        assert browser.get("/").status_code == 200
        monkeypatch.setattr("service.auth.sessions.SESSION_SECONDS", -1)
        assert browser.get("/").status_code == 303
        monkeypatch.undo()
        browser.cookies.clear()
        changed = "A" if cookie[-4] != "A" else "B"  # the last character may differ in bits that mean nothing
        browser.cookies.set(SESSION, cookie[:-4] + changed + cookie[-3:])
        assert browser.get("/").status_code == 303


def test_a_workers_key_is_not_for_logging_in(guarded: Guarded) -> None:
    with guarded.browser() as browser:
        answer = browser.post("/login", data={"key": guarded.key(Scope.WORKER)})
        assert answer.status_code == 401
        assert "scope worker" in answer.text


@pytest.mark.parametrize("where", ["https://evil.example", "//evil.example", r"/\evil.example", "/\t/evil.example", ""])
def test_a_login_leads_to_no_other_site(guarded: Guarded, where: str) -> None:
    with guarded.browser() as browser:
        entered = browser.post("/login", data={"key": guarded.key(Scope.READ), "next": where})
        assert entered.headers["Location"] == "/"


def test_without_keys_there_is_nothing_to_log_in_to(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        answer = service.http.get("/login", headers=PAGE)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")
