from pathlib import Path
from xml.etree import ElementTree

import pytest

from lowmem_rl.experiment.outcomes import Outcome
from lowmem_rl.experiment.pareto import render_pareto, write_pareto
from lowmem_rl.experiment.study import Study, parse_study
from lowmem_rl.experiment.trade_off import not_dominated, places_of
from lowmem_rl.experiment.verdicts import compare_arms
from lowmem_rl.units import GIB

TEXT = """
[study]
name = "</text><script>alert(1)</script>"
preset = "tiny-cpu"
seeds = [0, 1]
baseline = "all"
[arms.all]
[arms.last]
[arms.first]
"""
ENDS = {"all": (0.6, 8.0, 20.0), "last": (0.5, 6.0, 5.0), "first": (0.4, 7.0, 20.0)}
"""Accuracy, peak in GiB and minutes."""
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def study() -> Study:
    return parse_study(TEXT, "s")


def outcomes(task: str = "task") -> list[Outcome]:
    return [
        Outcome(task, arm, seed, "done", pass_at_1=accuracy, peak_bytes=int(peak * GIB), minutes=minutes)
        for arm, (accuracy, peak, minutes) in ENDS.items()
        for seed in (0, 1)
    ]


def drawn(study: Study, found: list[Outcome]) -> ElementTree.Element:
    return ElementTree.fromstring(render_pareto(study, found, compare_arms(study, found)))


def test_a_point_an_arm_and_a_line_through_those_that_none_beats(study: Study) -> None:
    svg = drawn(study, outcomes())
    points = {
        point.findtext(f"{SVG}title"): point
        for point in svg.iter(f"{SVG}circle")
        if point.find(f"{SVG}title") is not None
    }
    assert points.keys() == ENDS.keys()
    line = next(svg.iter(f"{SVG}polyline")).get("points")
    assert line == " ".join(f"{points[arm].get('cx')},{points[arm].get('cy')}" for arm in ("last", "all"))
    radii = {arm: float(point.get("r", "0")) for arm, point in points.items()}
    assert radii["all"] == radii["first"] == pytest.approx(2 * radii["last"])  # four times the minutes
    assert any("50 %, 6.00 GiB, 5 min" in (text.text or "") for text in svg.iter(f"{SVG}text"))


def test_a_hostile_name_is_text(study: Study) -> None:
    svg = drawn(study, outcomes())
    assert next(svg.iter(f"{SVG}script"), None) is None
    assert any("<script>alert(1)" in (text.text or "") for text in svg.iter(f"{SVG}text"))


def test_all_axes_have_ticks_however_small_or_equal_the_values(study: Study) -> None:
    for scale in (0.0, 1e-6, 1.0):
        found = [
            Outcome(
                "task", one.arm, one.seed, "done", pass_at_1=scale * (one.pass_at_1 or 0), peak_bytes=GIB, minutes=0.0
            )
            for one in outcomes()
        ]
        assert 2 <= len(list(drawn(study, found).iter(f"{SVG}line"))) <= 14


def test_each_task_has_a_plot_of_its_own() -> None:
    study = parse_study(TEXT + "[tasks.one]\n[tasks.two]\n", "s")
    svg = drawn(study, [*outcomes("one"), *outcomes("two")])
    assert len(list(svg.iter(f"{SVG}polyline"))) == 2
    single = drawn(study, outcomes("two"))
    assert 2 * int(single.get("height", "0")) == int(svg.get("height", "0"))


def test_before_a_run_has_ended_there_is_no_picture(study: Study, tmp_path: Path) -> None:
    running = [Outcome("task", "all", 0, "running", pass_at_1=0.3, peak_bytes=GIB, minutes=1.0)]
    for found in ([], running):
        assert write_pareto(study, found, compare_arms(study, found), tmp_path / "pareto.svg") is None
    assert not (tmp_path / "pareto.svg").exists()


def test_a_run_that_failed_counts_in_the_picture_as_in_the_table(study: Study) -> None:
    found = [*outcomes()[:-1], Outcome("task", "first", 1, "failed", peak_bytes=GIB, minutes=1.0)]
    found[0] = Outcome("task", "all", 0, "done", pass_at_1=0.6, base=0.1, peak_bytes=8 * GIB, minutes=20.0)
    places = places_of(compare_arms(study, found).of("task"), found, lambda one: one.minutes)
    assert places["first"].value == pytest.approx((0.4 + 0.1) / 2)


def test_arms_that_are_cheaper_and_better_dominate_the_others() -> None:
    assert not_dominated([(1, 0.5), (2, 0.4), (3, 0.9), (3, 0.8), (4, 0.9)]) == {1: 0.5, 3: 0.9}
