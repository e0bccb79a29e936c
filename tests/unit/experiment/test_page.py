import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lowmem_rl.experiment.outcomes import Outcome
from lowmem_rl.experiment.page import StudyPage, headline, remarks, render_study
from lowmem_rl.experiment.page_charts import not_dominated, on_grid, over_seeds
from lowmem_rl.experiment.study import Study, parse_study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trials import Trial
from lowmem_rl.experiment.verdicts import compare_arms
from tests.run_maker import make_run

TEXT = """
[study]
name = "<b>layers</b>"
preset = "tiny-cpu"
seeds = [0, 1, 2, 3, 4, 5]
baseline = "all"
[arms.all]
[arms.last]
[arms.first]
"""
GAINS = {"all": 0.0, "last": 0.1, "first": 0.0}


@pytest.fixture
def study() -> Study:
    return parse_study(TEXT, "s")


def outcomes(study: Study) -> list[Outcome]:
    return [
        Outcome(
            "task",
            arm,
            seed,
            "done",
            attempts=1,
            steps=3,
            pass_at_1=0.5 + gain + 0.001 * (-1) ** (seed + len(arm)),
            trained_numbers=1000,
            peak_bytes=2**30,
            step_s=2.0,
            minutes=30.0,
        )
        for arm, gain in GAINS.items()
        for seed in study.seeds
    ]


def test_the_headline_names_who_is_better_and_who_is_no_worse(study: Study) -> None:
    assert headline(study, compare_arms(study, outcomes(study))) == "Better than all: last; no worse than all: first"


def test_the_headline_does_not_call_arms_equal_of_which_nothing_is_known(study: Study) -> None:
    for found in ([], outcomes(study)[:1], [Outcome("task", arm, 0, "failed") for arm in GAINS]):
        assert headline(study, compare_arms(study, found)) == "Too few seeds have a result to compare arms"


def test_a_page_shows_hostile_names_as_text_and_asks_nobody(study: Study, tmp_path: Path) -> None:
    found, directory = outcomes(study), StudyDir(tmp_path)
    directory.append(Trial("task", "last", 0), exit_code=1, seconds=60.0)
    directory.append(Trial("task", "last", 100, 2), exit_code=0, seconds=120.0)
    turned = replace(study, text=f"# \u202e</pre><i>\n{study.text}")
    page = render_study(StudyPage(turned, found, compare_arms(study, found), price=0.8), directory)
    assert "<b>layers" not in page
    assert "\u202e" not in page
    assert "<i>" not in page
    assert "0.04" in page  # three minutes at 0.80
    charts = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [chart["title"] for chart in charts] == ["pass_at_1 by peak GiB", "pass_at_1 by minutes a run"]
    assert "http" not in re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL).replace("http-equiv", "")


def test_the_page_shows_what_tuning_chose(study: Study, tmp_path: Path) -> None:
    tune = '[tune]\nseeds = [100]\n"optimizer.learning_rate" = [1e-3, 3e-3]\n'
    tuned, directory = parse_study(TEXT + tune, "s"), StudyDir(tmp_path)
    directory.write(tuned, {"task/last": 1})
    found = outcomes(tuned)
    page = render_study(StudyPage(tuned, found, compare_arms(tuned, found)), directory)
    assert re.findall('data-of="tuned to">(.*?)<', page) == ["-", "learning_rate=0.003", "-"]


def test_few_seeds_and_missing_runs_are_named_first(study: Study) -> None:
    few = parse_study(TEXT.replace("[0, 1, 2, 3, 4, 5]", "[0, 1, 2]"), "s")
    first, second, *_ = remarks(few, compare_arms(few, outcomes(few)[:1]))
    assert first.startswith("Interim")
    assert "p = 0.25" in second


def test_arms_that_are_cheaper_and_better_dominate_the_others() -> None:
    assert not_dominated([(1, 0.5), (2, 0.4), (3, 0.9), (3, 0.8), (4, 0.9)]) == {1: 0.5, 3: 0.9}


def test_a_curve_is_the_mean_of_its_seeds_within_their_band() -> None:
    chart = over_seeds("Reward", "", "number", {"all": [{1: 0.0, 2: 1.0}, {1: 1.0}], "none": []})
    assert chart.series[0].values == (0.5, 1.0)
    assert (chart.bands[0].lows, chart.bands[0].highs) == ((0.0, None), (1.0, None))
    assert len(chart.series) == 1


def test_findings_are_counted_by_arm_and_failed_runs_come_first(study: Study, tmp_path: Path) -> None:
    found = outcomes(study)
    found[:2] = [replace(one, findings=("truncation_wall", "truncation_wall")) for one in found[:2]]
    found[3] = replace(found[3], status="failed", steps=0, pass_at_1=None)
    page = render_study(StudyPage(study, found, compare_arms(study, found)), StudyDir(tmp_path))
    health = page[page.index('id="health"') : page.index('id="runs"')]
    assert re.findall('data-of="(?:arm|finding|runs)">(.*?)<', health) == ["all", "truncation_wall", "2 of 5"]
    failed = page[page.index('id="runs"') : page.index("All 18 runs")]
    assert "Failed: 1 of 18" in failed
    assert re.findall('data-of="seed">(.*?)<', failed) == ["3"]


def test_a_study_without_findings_and_failures_says_nothing_of_them(study: Study, tmp_path: Path) -> None:
    found = outcomes(study)
    page = render_study(StudyPage(study, found, compare_arms(study, found)), StudyDir(tmp_path))
    assert 'id="health"' not in page
    assert "Failed" not in page


def test_runs_of_unequal_steps_are_averaged_at_the_same_tokens() -> None:
    curves = on_grid({"all": [{0.0: 0.0, 100.0: 1.0}, {50.0: 1.0, 70.0: 2.0}], "none": [{}]})
    first, second = curves["all"]
    assert [len(run) for run in (first, second)] == [100, 20]
    assert all(first[x] == pytest.approx(x / 100) for x in first)
    assert all(second[x] == pytest.approx(1 + (x - 50) / 20) for x in second)
    assert set(second) < set(first)
    assert over_seeds("Reward", "", "number", curves, "tokens").along == "tokens"
    assert on_grid({"all": []}) == {"all": []}


@pytest.mark.parametrize(
    ("match", "along", "last"), [("steps", "step", 20), ("tokens", "tokens", 2000), ("minutes", "minutes", 0.66667)]
)
def test_curves_are_along_what_arms_get_equally_much_of(tmp_path: Path, match: str, along: str, last: float) -> None:
    matched = parse_study(TEXT.replace('baseline = "all"', f'baseline = "all"\nmatch = "{match}"'), "s")
    for seed in (0, 1):
        make_run(tmp_path / Trial("task", "all", seed).place)
    found = outcomes(matched)
    page = render_study(StudyPage(matched, found, compare_arms(matched, found)), StudyDir(tmp_path))
    charts = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [(chart["title"], chart["along"]) for chart in charts[2:]] == [
        ("Reward", along),
        ("Held-out accuracy", along),
    ]
    assert charts[2]["xs"][-1] == pytest.approx(last)
    assert charts[2]["series"][0]["values"][-1] == pytest.approx(1.0)
