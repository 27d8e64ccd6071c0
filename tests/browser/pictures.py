"""Take screenshots of the dashboard with simulated searches. docs/images has those that the docs show.

python -m tests.browser.pictures FOLDER [NAME …]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright

from luthier.client import Client
from luthier.keys import Scope
from tests.browser.study import run, studied
from tests.integration.service_harness import Service, wait_until
from tests.webhook_receiver import receiving

LOOKS: Final = {
    "light": {"viewport": {"width": 1360, "height": 1000}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1360, "height": 1000}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}
PAGES: Final = {
    "jobs": "/",
    "new": "/new",
    "job": "/jobs/{job}",
    "trial": "/jobs/{job}/trials/{trial}",
    "compare": "/jobs/compare?jobs={job}&jobs={other}",
}


def take(browser: Browser, address: str, folder: Path, name: str, key: str | None = None) -> None:
    """One picture in each look, of what is shown to whoever logs in with the key."""
    for look, options in LOOKS.items():
        context = browser.new_context(**options)
        page = context.new_page()
        page.goto(address)
        if key is not None:
            page.get_by_label("API key").fill(key)
            page.keyboard.press("Enter")
            page.wait_for_url(address)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=folder / f"{name}-{look}.png")
        context.close()


def furnish(service: Service) -> str:
    """Webhooks that were told of something, and keys; answers with that of an administrator."""
    with receiving() as receiver:
        made = [service.client.create_webhook(f"{receiver.url}/luthier")]
        service.client.cancel(service.submit(search={"trials": 2}))
        wait_until(lambda: service.client.webhook_deliveries(made[0].id)[0].state == "delivered")
    service.client.create_webhook("https://ops.example.com/failures", ["fine_tuning.job.failed"])
    boss = service.client.create_key("me", Scope.ADMIN).key
    with Client(service.url, api_key=boss) as client:
        client.create_key("nightly", Scope.SUBMIT, days=90)
        client.create_key("gpu-box", Scope.WORKER)
        client.revoke_key(client.create_key("old laptop", Scope.READ).id)
    return boss


def main() -> None:
    """All pictures, or only those that are named after the folder."""
    folder, only = Path(sys.argv[1]), set(sys.argv[2:]) or {*PAGES, "access", "login"}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, studied(Path(home)) as (service, job_id), sync_playwright() as driver:
        other = service.submit(search={"trials": 10, "confirmations": 0}, suffix="short")
        run(service, other)
        best = service.client.best(job_id).trial
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in PAGES.keys() & only:
            address = service.url + PAGES[name].format(job=job_id, other=other, trial=best)
            take(browser, address, folder, name)
        key = furnish(service)
        if "access" in only:
            take(browser, f"{service.url}/access", folder, "access", key)
        if "login" in only:
            take(browser, f"{service.url}/login", folder, "login")
        browser.close()


if __name__ == "__main__":
    main()
