"""The report as a browser shows it."""

from threading import Thread

import pytest

from lowmem_rl.reports.html import write_report
from lowmem_rl.reports.live_server import Follower, LiveServer
from lowmem_rl.storage.run_dir import append_row, read_json, write_json
from tests.run_maker import make_run, metric_row

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(make_run(tmp_path_factory.mktemp("long") / "run", steps=200, hostile=True))


@pytest.fixture
def opened(listening, report):
    """Returns a function that opens a run's report; complaints and requests are in `heard`."""

    def open_page(width: int, theme: str):
        page = listening(viewport={"width": width, "height": 800}, color_scheme=theme)
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


def test_the_charts_follow_the_pointer(opened):
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


def test_a_followed_page_updates_itself_and_keeps_what_the_reader_chose(listening, tmp_path):
    run = make_run(tmp_path / "run", steps=5)
    evaluations = read_json(run / "eval.json")
    write_json(run / "eval.json", {"before": evaluations["before"]})
    server = LiveServer(Follower(run), 0)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    page = listening()
    page.goto(address)
    page.locator("#prompts summary, #memory summary").first.click()
    page.locator(".u-series", has_text="reward").first.click()
    append_row(server.follower.run.metrics, metric_row(6, 20))
    server.follower.rests_until = 0.0
    page.get_by_text("6 of 200", exact=True).wait_for()
    assert page.locator("details[open]").count() == 1
    assert page.locator(".u-series.u-off").count() == 1
    write_json(run / "health.json", {"step": 6, "findings": []})
    page.get_by_text("The run has ended.").wait_for()
    assert set(page.heard) == {address}
    server.shutdown()
    server.server_close()
