"""Pictures of the dashboard for the docs, of searches that are only pretended.

python -m tests.browser.pictures docs/images
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright

from tests.browser.study import run, studied

LOOKS: Final = {
    "light": {"viewport": {"width": 1360, "height": 1000}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1360, "height": 1000}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}
PAGES: Final = {"jobs": "/", "job": "/jobs/{job}", "compare": "/jobs/compare?jobs={job}&jobs={other}"}


def take(browser: Browser, address: str, folder: Path, name: str) -> None:
    """One picture in each look."""
    for look, options in LOOKS.items():
        context = browser.new_context(**options)
        page = context.new_page()
        page.goto(address)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=folder / f"{name}-{look}.png")
        context.close()


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, studied(Path(home)) as (service, job_id), sync_playwright() as driver:
        other = service.submit(search={"trials": 10, "confirmations": 0}, suffix="short")
        run(service, other)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, path in PAGES.items():
            take(browser, service.url + path.format(job=job_id, other=other), folder, name)
        browser.close()


if __name__ == "__main__":
    main()
