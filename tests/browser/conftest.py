"""A real browser for the dashboard's tests: Debian's chromium, driven by Playwright.

Where there is none the tests are skipped, and say so; in CI they fail instead.
"""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, expect, sync_playwright

from tests.browser.study import studied
from tests.integration.service_harness import Service

PATIENCE_MS = 30_000
MISSING = "no chromium here: `make chromium` installs Debian's, or put one on the PATH"

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="package")
def chromium() -> str:
    """Where the browser is."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    return found


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="package")
def browser(chromium: str, playwright: Playwright) -> Iterator[Browser]:
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]  # containers have no user namespaces and little /dev/shm
    launched = playwright.chromium.launch(executable_path=chromium, args=arguments)
    yield launched
    launched.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """A service with a job that has ended, for tests that only look."""
    with studied(tmp_path_factory.mktemp("browser") / "home", trials=9, finalists=2, confirmations=1) as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page; whatever the browser complains of fails the test."""
    context = browser.new_context(viewport={"width": 1360, "height": 900}, locale="en-GB")
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    complaints = listen(opened)
    yield opened
    context.close()
    assert complaints == []


def listen(page: Page) -> list[str]:
    """What the browser complains of from now on."""
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints
