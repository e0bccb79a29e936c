import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lowmem_rl.experiment.outcomes import Outcome
from lowmem_rl.experiment.page import StudyPage, costs_of, headline, remarks, render_study
from lowmem_rl.experiment.page_charts import on_grid, over_seeds
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
    assert re.findall('data-of="tuned to">(.*?)<', page) == ["-", "learning_rate = 0.003", "-"]


def test_arms_that_tuning_left_at_an_end_of_its_values_are_named(tmp_path: Path) -> None:
    tune = '[tune]\nseeds = [100]\n"optimizer.learning_rate" = [1e-2, 1e-4, 1e-3]\n"trainable.layers" = ["all"]\n'
    tuned, directory = parse_study(TEXT + tune, "s"), StudyDir(tmp_path)
    for chosen, names in (((0, 1, 2), "all, last"), ((2, 2, 2), "")):
        directory.write(tuned, {f"task/{arm}": number for arm, number in zip(GAINS, chosen, strict=True)})
        found = [one for one in remarks(tuned, compare_arms(tuned, []), directory) if one.startswith("Tuned to an end")]
        assert found == (
            [f"Tuned to an end of the values that were tried, so that others may be better: {names}."] if names else []
        )


def test_a_reward_has_an_interval_over_seeds(study: Study) -> None:
    reward = replace(study, metric="reward")
    found = compare_arms(reward, [replace(one, reward=one.pass_at_1) for one in outcomes(study)]).arms[0]
    assert found.interval is not None
    assert found.interval.low < found.value < found.interval.high


def test_what_is_said_before_every_run_has_ended_is_called_interim(study: Study, tmp_path: Path) -> None:
    found = [one for one in outcomes(study) if one.seed < 4]
    verdicts = compare_arms(study, found)
    assert headline(study, verdicts).startswith("Interim. Better than all: last")
    page = render_study(StudyPage(study, found, verdicts), StudyDir(tmp_path))
    assert "<th>p (Holm), interim</th>" in page


def test_a_margin_of_a_reward_is_no_share(study: Study, tmp_path: Path) -> None:
    reward = replace(study, metric="reward")
    found = [replace(one, reward=one.pass_at_1) for one in outcomes(study)]
    page = render_study(StudyPage(reward, found, compare_arms(reward, found)), StudyDir(tmp_path))
    assert "no worse (0.02)" in page
    assert "2 points" not in page


def test_few_seeds_and_missing_runs_are_named_first(study: Study, tmp_path: Path) -> None:
    few = parse_study(TEXT.replace("[0, 1, 2, 3, 4, 5]", "[0, 1, 2]"), "s")
    first, second, *_ = remarks(few, compare_arms(few, outcomes(few)[:1]), StudyDir(tmp_path))
    assert first.startswith("Interim")
    assert "p = 0.25" in second


def test_a_curve_is_the_mean_of_its_seeds_within_their_band() -> None:
    chart = over_seeds("Reward", "", "number", {"all": [{1: 0.0, 2: 1.0}, {1: 1.0}], "none": []})
    assert chart.series[0].values == (0.5, 1.0)
    assert (chart.bands[0].lows, chart.bands[0].highs) == ((0.0, None), (1.0, None))
    assert len(chart.series) == 1


@pytest.mark.slow
def test_a_page_says_what_its_seeds_could_find(study: Study, tmp_path: Path) -> None:
    directory = StudyDir(tmp_path)
    found = list(remarks(study, compare_arms(study, outcomes(study)), directory))
    size = float(re.search(r"^6 seeds with the spread seen here find a difference of ([\d.]+) in four", found[0])[1])
    assert size == pytest.approx(0.004, abs=0.003)  # differences alternate by 0.002, or not at all
    few = parse_study(TEXT.replace("[0, 1, 2, 3, 4, 5]", "[0, 1]"), "s")
    wide = [replace(one, pass_at_1=(one.pass_at_1 or 0) + 0.1 * one.seed * len(one.arm)) for one in outcomes(few)]
    assert any("no difference, however large" in one for one in remarks(few, compare_arms(few, wide), directory))
    assert not any("spread" in one for one in remarks(few, compare_arms(few, wide[:1]), directory))


def test_minutes_of_a_run_are_those_of_runs_that_have_ended(study: Study) -> None:
    found = outcomes(study)[:2]
    assert costs_of([found[0], replace(found[1], status="running", minutes=1.0)])[-1] == "30.0"


def test_a_study_of_several_tasks_has_a_mean_over_them(tmp_path: Path) -> None:
    study = parse_study(TEXT + "[tasks.one]\n[tasks.two]\n", "s")
    found = [
        replace(one, task=task, pass_at_1=(one.pass_at_1 or 0) + more)
        for task, more in (("one", 0.0), ("two", 0.2))
        for one in outcomes(study)
    ]
    verdicts = compare_arms(study, found)
    assert {arm: round(mean.value, 2) for arm, mean in verdicts.over_tasks.items()} == {
        "all": 0.6,
        "last": 0.7,
        "first": 0.6,
    }
    page = render_study(StudyPage(study, found, verdicts), StudyDir(tmp_path))
    assert "<h3>All tasks</h3>" in page
    reward = replace(study, metric="reward")
    assert not compare_arms(reward, [replace(one, reward=one.pass_at_1) for one in found]).over_tasks


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
