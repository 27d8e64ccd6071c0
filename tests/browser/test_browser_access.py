"""Keys and webhooks made and ended on their page, in a real browser."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from luthier.keys import Scope
from tests.integration.service_harness import Service, serving
from tests.webhook_receiver import receiving

pytestmark = pytest.mark.xdist_group("browser")  # one process starts the browser and the services


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("access")) as service:
        service.add_model()
        yield service


def make_key(page: Page, name: str, scope: Scope, days: str = "") -> str:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Scope").select_option(scope.value)
    page.get_by_label("Expires after").fill(days)
    page.locator("#add-key").get_by_role("button", name="Create").click()
    expect(page.locator("#made-key")).to_contain_text(name)
    return page.get_by_label("New API key").input_value()


def test_from_the_first_key_to_its_end(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/access")
    mine = make_key(page, "me", Scope.ADMIN)
    expect(page.locator("#part-keys .empty")).to_have_count(0)
    page.reload()
    expect(page).to_have_url(re.compile(r"/login\?next=%2Faccess"))
    page.get_by_label("API key").fill(mine)
    page.keyboard.press("Enter")
    expect(page.get_by_role("row", name="me yours")).to_be_visible()
    assert mine not in page.content()

    other = make_key(page, "nightly", Scope.READ, "90")
    row = page.get_by_role("row", name="nightly")
    expect(row).to_contain_text("read")
    expect(row).not_to_contain_text("never never")
    authorized = {"Authorization": f"Bearer {other}"}
    assert service.http.get("/v1/files", headers=authorized).status_code == 200

    said: list[str] = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.accept()))
    row.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("1 revoked or expired")).to_be_visible()
    assert "nightly" in said[0]
    assert service.http.get("/v1/files", headers=authorized).status_code == 401

    page.get_by_role("row", name="me yours").get_by_role("button", name="Revoke").click()
    expect(page).to_have_url(re.compile("/login"))
    assert "logged out" in said[1]


def test_a_webhook_is_added_looked_at_and_deleted(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/access")
    with receiving() as receiver:
        page.get_by_label("URL").fill(receiver.url)
        page.get_by_label("fine_tuning.job.succeeded").uncheck()
        page.get_by_role("button", name="Add").click()
        shown = page.get_by_label("Signing secret")
        expect(shown).to_have_value(re.compile("^whsec_"))
        secret = shown.input_value()
        expect(page.locator("#part-webhooks")).to_contain_text("fine_tuning.job.failed")
        expect(page.locator("#part-webhooks")).not_to_contain_text("fine_tuning.job.succeeded")

        service.client.cancel(service.submit(search={"trials": 2}))
        page.get_by_role("link", name=receiver.url).click()
        expect(page.get_by_role("row", name="fine_tuning.job.cancelled")).to_contain_text("delivered")
    assert secret not in page.content()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#part-webhooks .empty")).to_be_visible()
    assert service.client.webhooks() == []


def test_what_is_refused_is_said(browser: Browser, service: Service) -> None:
    with browser.new_context() as context:  # the browser itself complains of an answer of 400
        page = context.new_page()
        page.goto(f"{service.url}/access")
        page.get_by_label("URL").fill("ftp://example.com")
        page.get_by_role("button", name="Add").click()
        expect(page.locator("#problem")).to_contain_text("http://")
    assert service.client.webhooks() == []


def test_the_page_fits_a_phone(page: Page, service: Service) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    service.client.create_webhook("https://example.com/" + "a-long-address/" * 9)
    page.goto(f"{service.url}/access")
    make_key(page, "me", Scope.ADMIN)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
