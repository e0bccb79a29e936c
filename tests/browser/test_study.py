"""The page of a study as a browser shows it."""

import pytest
from lowmem_rl_cli.experiment_view import report_command

from tests.study_maker import ENDS, make_study

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def study_page(tmp_path_factory):
    directory = make_study(tmp_path_factory.mktemp("study") / "layers", hostile=True)
    report_command(directory.path, None, 0.4, as_json=True)
    return directory.report


@pytest.fixture
def opened(listening, study_page):
    """Returns a function that opens the study's page; complaints and requests are in `heard`."""

    def open_page(width: int, theme: str):
        page = listening(viewport={"width": width, "height": 800}, color_scheme=theme)
        page.goto(study_page.as_uri())
        assert page.heard == [study_page.as_uri()]
        return page

    return open_page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_loads_without_complaint_or_request_and_fits_the_screen(opened, width, theme):
    page = opened(width, theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".chart canvas").count() == page.locator(".chart").count() == 4
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title().startswith("which-layers: Worse than lora-all: full-last")
    assert page.heard[1:] == []


def test_every_arm_has_a_strip_in_the_theme_s_colour(opened):
    page = opened(1280, "light")
    strips = page.locator("#layers .strip path")
    assert strips.count() == len(ENDS)
    heights = [strips.nth(number).bounding_box()["height"] for number in range(len(ENDS))]
    filled, last_five, first_five, *_ = heights
    assert last_five == pytest.approx(5 / 28 * filled, rel=0.05)
    assert first_five == pytest.approx(last_five, rel=0.05)
    before = strips.first.evaluate("(part) => getComputedStyle(part).fill")
    page.emulate_media(color_scheme="dark")
    assert strips.first.evaluate("(part) => getComputedStyle(part).fill") != before


def test_the_arms_fit_next_to_each_other_and_the_runs_are_folded(opened):
    page = opened(1280, "light")
    assert page.locator("#arms .wide").evaluate("(part) => part.scrollWidth - part.clientWidth") <= 0
    assert page.locator("#runs details[open]").count() == 0
    assert page.get_by_text("Failed: 1 of 30").is_visible()
    page.get_by_text("All 30 runs").click()
    assert page.locator("#runs details tr").count() == 31


def test_what_a_run_wrote_does_not_run(opened):
    page = opened(1280, "light")
    page.wait_for_timeout(200)
    assert "owned" not in page.title()
    assert page.locator("img").count() == 0
    assert page.locator("#health td", has_text="<script>").count() == len(ENDS)


def test_the_line_through_the_best_arms_has_no_arm_s_colour(opened):
    page = opened(1280, "light")
    markers = page.locator("figure").first.locator(".u-series .u-marker")
    colours = markers.evaluate_all("(parts) => parts.map((part) => getComputedStyle(part).borderColor)")[
        -len(ENDS) - 1 :
    ]
    assert len(set(colours)) == len(ENDS) + 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_next_to_the_page_holds_its_texts_in_the_theme_s_colour(listening, study_page, theme):
    page = listening(viewport={"width": 800, "height": 600}, color_scheme=theme)
    page.goto(study_page.with_name("pareto.svg").as_uri())
    inside = "(part) => { const b = part.getBBox(); return b.x >= 0 && b.x + b.width <= 760; }"
    texts = page.locator("text")
    assert texts.count() > 2 * len(ENDS)
    assert all(texts.nth(number).evaluate(inside) for number in range(texts.count()))
    assert page.locator("circle title").count() == len(ENDS)
    ground = page.locator(".ground").evaluate("(part) => getComputedStyle(part).fill")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[theme]
    assert page.heard == [study_page.with_name("pareto.svg").as_uri()]
