"""Logging in with a key, and what is refused without, in a real browser."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect

from luthier.keys import Scope
from tests.browser.conftest import PATIENCE_MS
from tests.integration.service_harness import Service, serving

pytestmark = pytest.mark.xdist_group("browser")  # one process starts the browser and the services


class Guarded(NamedTuple):
    service: Service
    key: str


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A service that has a key, and one that may only look."""
    with serving(tmp_path_factory.mktemp("guarded")) as service:
        service.add_model()
        reader = service.client.create_key("reader", Scope.READ)
        yield Guarded(service, reader.key)


def log_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 1100), ("light", 390)])
def test_the_way_in_leads_to_the_page_that_was_asked_for(
    browser: Browser, guarded: Guarded, scheme: str, width: int
) -> None:
    look = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 700})  # type: ignore[arg-type]
    look.set_default_timeout(PATIENCE_MS)
    page = look.new_page()
    page.goto(f"{guarded.service.url}/?limit=7")
    expect(page).to_have_url(re.compile("/login"))
    expect(page.get_by_label("API key")).to_be_focused()
    log_in(page, guarded.key)
    expect(page).to_have_url(f"{guarded.service.url}/?limit=7")
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    look.close()


def test_a_wrong_key_is_refused_with_its_reason(browser: Browser, guarded: Guarded) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(guarded.service.url)
        log_in(page, "luthier_guess")
        expect(page.get_by_role("alert")).to_be_visible()
        page.goto(f"{guarded.service.url}/")
        expect(page).to_have_url(re.compile("/login"))


def test_scripts_cannot_read_the_cookie_and_act_as_far_as_the_key_allows(browser: Browser, guarded: Guarded) -> None:
    post = """path => fetch(path, {method: "POST", body: "{}", headers: {"content-type": "application/json"}})
              .then(answer => answer.status)"""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{guarded.service.url}/")
        log_in(page, guarded.key)
        expect(page).to_have_url(f"{guarded.service.url}/")
        assert "luthier_session" not in page.evaluate("document.cookie")
        assert page.evaluate("fetch('/v1/models').then(answer => answer.status)") == 200
        assert page.evaluate(post, "/v1/fine_tuning/jobs") == 403


def test_logging_out_ends_it(browser: Browser, guarded: Guarded) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{guarded.service.url}/")
        log_in(page, guarded.key)
        page.get_by_role("button", name="Log out").click()
        expect(page).to_have_url(f"{guarded.service.url}/login")
        page.goto(f"{guarded.service.url}/")
        expect(page).to_have_url(re.compile("/login"))


def test_a_page_of_another_site_cannot_act_in_the_name_of_who_is_logged_in(browser: Browser, guarded: Guarded) -> None:
    """`localhost` is another site than 127.0.0.1 to the browser, and the same service."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{guarded.service.url}/")
        log_in(page, guarded.key)
        expect(page).to_have_url(f"{guarded.service.url}/")
        other = context.new_page()
        other.goto(guarded.service.url.replace("127.0.0.1", "localhost") + "/healthz")
        other.set_content(f'<form method="post" action="{guarded.service.url}/logout"><button>A prize</button></form>')
        with other.expect_response("**/logout") as answer:
            other.get_by_role("button").click(no_wait_after=True)
        assert answer.value.status == 403
        page.reload()
        expect(page.get_by_role("button", name="Log out")).to_be_visible()
