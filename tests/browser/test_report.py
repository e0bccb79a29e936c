"""The report as a browser shows it: run where a Chromium is installed, with `pytest -m browser`."""

import shutil

import pytest

from lowmem_rl.reports.page import write_report
from tests.run_maker import make_run

pytestmark = pytest.mark.browser
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: nothing looked at the report")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Returns a function that opens a run's report; complaints and requests are in `heard`."""
    report = write_report(make_run(tmp_path / "run", steps=200, hostile=True))

    def open_page(width: int, theme: str):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
        page.heard = []
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("request", lambda request: page.heard.append(request.url))
        page.goto(report.as_uri())
        assert page.heard == [report.as_uri()]
        return page

    return open_page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_loads_without_complaint_or_request_and_fits_the_screen(opened, width, theme):
    page = opened(width, theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".chart canvas").count() == page.locator("figure").count() > 5
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title().startswith("run: It learned")


def test_the_charts_answer_to_the_pointer(opened):
    page = opened(1280, "light")
    step = page.locator(".u-legend .u-value").first
    assert step.inner_text() == "200"
    page.locator(".u-over").first.hover()
    assert 90 <= int(step.inner_text()) <= 110


def test_the_charts_follow_the_theme_and_the_width(opened):
    page = opened(1280, "light")
    marker = page.locator(".u-marker").first
    before = marker.evaluate("(part) => getComputedStyle(part).borderColor")
    page.emulate_media(color_scheme="dark")
    assert marker.evaluate("(part) => getComputedStyle(part).borderColor") != before
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= 360")


def test_what_a_model_wrote_does_not_run(opened):
    page = opened(1280, "light")
    page.wait_for_timeout(200)
    assert "owned" not in page.title()
    assert page.locator("img").count() == 0
