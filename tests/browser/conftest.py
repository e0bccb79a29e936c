"""A browser for the tests here; they are skipped with a reason if playwright or a Chromium is missing."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(Path(__file__).parents[2] / ".tools" / "browsers"))
UNSEEN = "nothing looked at the report"


@pytest.fixture(scope="session")
def browser():
    playwright_api = pytest.importorskip("playwright.sync_api", reason=f"no playwright is installed: {UNSEEN}")
    with playwright_api.sync_playwright() as playwright:
        try:
            # One on PATH, else the one that `playwright install chromium` has fetched.
            running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright_api.Error as error:
            pytest.skip(f"no Chromium starts: {UNSEEN} ({str(error).splitlines()[0]})")
        yield running
        running.close()


@pytest.fixture
def listening(browser):
    """Returns a function that opens an empty page, whose complaints and requests are in `heard`."""

    def open_page(**options):
        page = browser.new_page(**options)
        page.heard = []
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("request", lambda request: page.heard.append(request.url))
        return page

    return open_page
