import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lowmem_rl_cli.experiment_run import _resume_command, default_out

from lowmem_rl.experiment.study import parse_study, read_study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trials import Trial, final_trials
from lowmem_rl.storage.run_dir import RunDir, read_json, write_json
from tests.run_maker import make_run
from tests.study_maker import make_study

STUDY = """
[study]
name = "layers"
preset = "tiny-cpu"
seeds = [0, 1, 2]
baseline = "all"
[study.set]
"grpo.steps" = 3
[arms.all]
[arms.last]
"trainable.layers" = "last:1"
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "layers.toml"
    path.write_text(STUDY)
    return path


def test_a_dry_run_shows_each_arm_and_what_the_study_can_find(cli_here, study: Path) -> None:
    code, out, _ = cli_here("experiment", "run", str(study), "--dry-run")
    assert code == 0
    assert 'trainable.layers="last:1"' in out
    assert "6 runs and 0 to tune" in out
    assert "in four of five studies" in out
    assert "it favours those that it suits" in out
    assert not (study.parent / "experiments").exists()


def test_a_dry_run_does_not_promise_a_difference_that_no_accuracy_has(cli_here, study: Path) -> None:
    arms = "".join(f"[arms.a{number}]\n" for number in range(5))
    study.write_text(study.read_text().replace("[0, 1, 2]", "[0, 1]") + arms)
    out = cli_here("experiment", "run", str(study), "--dry-run")[1]
    assert "2 seeds find no difference, however large, in 6 comparisons" in " ".join(out.split())


def test_a_dry_run_for_a_program(cli_here, study: Path) -> None:
    facts = json.loads(cli_here("experiment", "run", str(study), "--dry-run", "--json")[1])
    assert [arm["differences"] for arm in facts["arms"]] == [{}, {"trainable.layers": "last:1"}]
    assert 0.1 < facts["finds"] < 0.2


@pytest.fixture
def card_study(study: Path) -> Path:
    """A study for a card, whose arms are tuned over two settings on one seed, in half as many steps."""
    tune = '[tune]\nseeds = [100]\nsteps = 30\n"optimizer.learning_rate" = [1e-6, 1e-5]\n'
    text = study.read_text().replace("tiny-cpu", "qwen1.5b-24gb").replace('"grpo.steps" = 3', '"grpo.steps" = 60')
    study.write_text(text + tune)
    return study


def test_a_dry_run_adds_up_the_hours_of_all_runs_and_their_price(cli_here, card_study: Path) -> None:
    asked = ("experiment", "run", str(card_study), "--dry-run", "--price-per-hour", "0.5")
    facts = json.loads(cli_here(*asked, "--json")[1])
    total, hours = facts["total"], facts["total"]["hours"]
    assert (total["runs"], total["tuning_runs"]) == (6, 4)
    runs = sum(arm["minutes"] for arm in facts["arms"]) / 60
    assert hours["high"] == pytest.approx(runs + total["tuning_hours"]["high"])
    assert runs / 6 < total["tuning_hours"]["high"] < runs / 3  # 4 runs of half the steps, without evaluations, to 6
    assert total["price"] == pytest.approx({end: 0.5 * hours[end] for end in ("low", "high")})
    out = cli_here(*asked, "--jobs", "2")[1]
    assert f"{hours['low']:.1f} to {hours['high']:.1f} hours of one card" in out
    assert f"On 2 such cards at once it is over after {hours['low'] / 2:.1f} to " in out
    assert f"It costs {0.5 * hours['low']:.2f} to {0.5 * hours['high']:.2f} at 0.5 an hour." in out


def test_a_dry_run_promises_no_hours_on_a_cpu(cli_here, study: Path) -> None:
    asked = ("experiment", "run", str(study), "--dry-run", "--price-per-hour", "0.5")
    total = json.loads(cli_here(*asked, "--json")[1])["total"]
    assert total == {"runs": 6, "tuning_runs": 0, "hours": None, "tuning_hours": None, "price": None}
    assert "How long it takes is not known before its first run has ended" in cli_here(*asked)[1]


@pytest.mark.parametrize("price", ["-1", "nan", "1e9"])
def test_what_is_no_price_is_refused(cli_here, study: Path, price: str) -> None:
    code, _, err = cli_here("experiment", "run", str(study), "--dry-run", "--price-per-hour", price)
    assert (code, len(err.splitlines())) == (2, 2)
    assert "--price-per-hour" in err


@pytest.mark.parametrize(
    ("old", "new", "code", "what"),
    [
        ('"trainable.layers"', '"trainable.layer"', 2, "trainable.layer"),
        ('"last:1"', '"last:9"', 2, "the model has 3 layers"),
        ('"tiny-cpu"', '"tiny-cup"', 2, "tiny-cpu"),
        ('"grpo.steps" = 3', '"task.name" = "nope"', 2, "nope"),
        ('"grpo.steps" = 3', '"grpo.group_size" = 3', 2, "memory.micro_batch"),
        ('"grpo.steps" = 3', '"seed" = 3', 2, "a study sets seed itself"),
        ('"grpo.steps" = 3', '"task.name" = "mine.py:Task"', 2, "--allow-code"),
    ],
)
def test_every_arm_is_checked_before_anything_starts(
    cli_here, study: Path, old: str, new: str, code: int, what: str
) -> None:
    study.write_text(study.read_text().replace(old, new))
    found, out, err = cli_here("experiment", "run", str(study), "--out", "e")
    assert found == code
    assert what in err
    assert re.search("arm (all|last)", err, re.IGNORECASE) or "preset" in err
    assert len(err.splitlines()) == 2
    assert not Path("e").exists()


@pytest.mark.parametrize("key", ['"rewards.mine.py:f"', '"task.name"'])
def test_code_that_only_tuning_names_does_not_run_without_permission(cli_here, study: Path, key: str) -> None:
    Path("mine.py").write_text("open('ran', 'w').close()\n")
    values = {'"task.name"': '["arithmetic", "mine.py:Task"]'}.get(key, "[0.0, 1.0]")
    study.write_text(study.read_text() + f"[tune]\nseeds = [100]\n{key} = {values}\n")
    code, _, err = cli_here("experiment", "run", str(study), "--dry-run")
    assert (code, "--allow-code" in err) == (2, True)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("metric", "key", "what"),
    [
        ("pass_at_1", '"eval.examples" = 7', "it is evaluated on 7 other items than all"),
        ("pass_at_1", '"task.levels" = [2]', "other items than all"),
        ("reward", '"rewards.think_format" = 3.0', "its rewards are not those of all"),
    ],
)
def test_arms_that_measure_different_things_are_refused(
    cli_here, study: Path, metric: str, key: str, what: str
) -> None:
    text = study.read_text().replace('baseline = "all"', f'baseline = "all"\nmetric = "{metric}"')
    study.write_text(f"{text}{key}\n")
    code, _, err = cli_here("experiment", "run", str(study), "--dry-run")
    assert (code, what in err, len(err.splitlines())) == (2, True, 2)


def test_other_data_with_the_same_held_out_items_is_compared(cli_here, study: Path) -> None:
    study.write_text(study.read_text() + '"task.prompt" = "boxed"\n"rewards.think_format" = 0.0\n')
    assert cli_here("experiment", "run", str(study), "--dry-run").code == 0


def test_a_task_does_not_set_the_seed(cli_here, study: Path) -> None:
    study.write_text(study.read_text() + "[tasks.one]\nseed = 3\n")
    code, _, err = cli_here("experiment", "run", str(study), "--dry-run")
    assert (code, "a study sets seed itself" in err) == (2, True)


def test_an_arm_that_fits_no_card_ends_with_4_after_the_plan_is_shown(cli_here, study: Path) -> None:
    text = study.read_text().replace("tiny-cpu", "qwen7b-24gb")
    study.write_text(text.replace('"trainable.layers" = "last:1"', '"trainable.method" = "full"'))
    code, out, err = cli_here("experiment", "run", str(study), "--dry-run")
    assert code == 4
    assert "does-not-fit" in out
    assert "Arm last: " in err


def test_a_study_for_a_card_needs_one(cli_here, study: Path) -> None:
    study.write_text(study.read_text().replace("tiny-cpu", "qwen7b-24gb"))
    code, _, err = cli_here("experiment", "run", str(study), "--out", "e")
    assert code == 3
    assert "made for a GPU" in err
    assert not Path("e").exists()


@pytest.mark.skipif(shutil.which("srun") is not None, reason="there is SLURM here")
def test_a_study_that_cannot_start_leaves_no_directory(cli_here, study: Path) -> None:
    pytest.importorskip("submitit")
    code, _, err = cli_here("experiment", "run", str(study), "--on", "slurm", "--out", "e")
    assert (code, len(err.splitlines())) == (3, 2)
    assert "no SLURM" in err
    assert not Path("e").exists()


def test_a_directory_without_a_study(cli_here) -> None:
    for command in ("status", "report"):
        code, _, err = cli_here("experiment", command, ".")
        assert code == 7
        assert "study.json" in err
    assert cli_here("experiment", "run", "--resume", "--out", "nowhere")[0] == 7
    assert cli_here("experiment", "run", "--resume")[0] == 2
    assert cli_here("experiment", "run")[0] == 2


def test_a_study_whose_name_has_slashes_stays_in_its_folder() -> None:
    assert default_out(parse_study(STUDY.replace('"layers"', '"../../etc"'), "s")).parent == Path("experiments")


@pytest.fixture
def begun(study: Path) -> Path:
    """The directory of a study with a run that was made with another torch."""
    out = study.parent / "begun"
    StudyDir.create(out, read_study(study))
    run = RunDir(make_run(out / Trial("task", "last", 1).place))
    write_json(run.machine, {"versions": {"torch": "0.0.1"}})
    return out


def test_a_study_does_not_continue_with_other_versions(cli_here, begun: Path) -> None:
    code, _, err = cli_here("experiment", "run", "--resume", "--out", str(begun), "--dry-run")
    assert (code, len(err.splitlines())) == (3, 2)
    assert "other software than is here: torch 0.0.1 -> " in err
    assert "--force continues" in err


def test_by_force_it_continues_with_a_warning(cli_here, begun: Path) -> None:
    code, _, err = cli_here("experiment", "run", "--resume", "--out", str(begun), "--dry-run", "--force")
    assert (code, len(err.splitlines())) == (0, 1)
    assert err.startswith("warning: ")
    assert "torch 0.0.1 -> " in err


def test_the_command_that_continues_keeps_what_was_allowed() -> None:
    command = _resume_command(Path("my study"), force=True, allow_code=True)
    assert command == "lowmem-rl experiment run --resume --force --allow-code --out 'my study'"


@pytest.fixture
def finished(tmp_path: Path) -> StudyDir:
    return make_study(tmp_path / "finished")


@pytest.mark.slow
def test_a_report_for_a_program_has_the_middle_half_and_what_could_be_found(cli_here, finished: StudyDir) -> None:
    facts = json.loads(cli_here("experiment", "report", str(finished.path), "--json")[1])
    for arm in facts["arms"]:
        middle = arm["interquartile"]
        assert middle["interval"]["low"] <= middle["value"] <= middle["interval"]["high"]
    assert facts["finds"] == pytest.approx(0.13, abs=0.05)
    assert 0.01 < facts["spread"] < 0.05
    assert facts["over_tasks"] == {}
    assert facts["pareto"] == str(finished.path / "pareto.svg")
    assert "full-first-5" in finished.pareto.read_text()


@pytest.mark.slow
def test_a_page_elsewhere_has_its_picture_next_to_it(cli_here, finished: StudyDir, tmp_path: Path) -> None:
    assert cli_here("experiment", "report", str(finished.path), "--out", "pages/one.html").code == 0
    assert {path.name for path in Path("pages").iterdir()} == {"one.html", "one.pareto.svg"}
    assert not finished.pareto.exists()


@pytest.mark.slow
def test_the_page_is_opened_in_the_browser_of_the_user(finished: StudyDir, tmp_path: Path) -> None:
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f"#!/bin/sh\nprintf %s \"$1\" > '{seen}'\n")
    browser.chmod(0o755)
    command = [sys.executable, "-m", "lowmem_rl", "experiment", "report", str(finished.path), "--open"]
    found = subprocess.run(command, env={**os.environ, "BROWSER": f"{browser} %s"}, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
    assert seen.read_text() == finished.report.resolve().as_uri()


@pytest.mark.slow
def test_without_a_browser_the_page_is_written_and_named(finished: StudyDir) -> None:
    command = [sys.executable, "-m", "lowmem_rl", "experiment", "report", str(finished.path), "--open", "--json"]
    nothing = dict.fromkeys(("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"), "")
    found = subprocess.run(command, env={**os.environ, **nothing, "PATH": "/nowhere"}, capture_output=True, text=True)
    assert found.returncode == 0
    assert found.stderr == f"warning: no browser could be opened; open {finished.report} in one\n"
    assert Path(json.loads(found.stdout)["page"]).is_file()


@pytest.mark.slow
def test_a_plan_that_continues_knows_the_spread_that_was_seen(cli_here, study: Path) -> None:
    out = study.parent / "seen"
    directory = StudyDir.create(out, read_study(study))
    for trial in final_trials(directory.read()):
        run = RunDir(make_run(out / trial.place, grpo__steps=20))
        found = read_json(run.evaluations)
        found["after"]["pass_at_1"] = 0.5 + (0.02 * trial.seed if trial.arm == "last" else 0.0)
        write_json(run.evaluations, found | {"comparison": {"gain": 0.0}})
    asked = ("experiment", "run", "--resume", "--out", str(out), "--dry-run", "--force")
    report = json.loads(cli_here("experiment", "report", str(out), "--json")[1])
    assert report["spread"] == pytest.approx(0.02 / 2**0.5)  # of the differences 0, 0.02 and 0.04
    assert json.loads(cli_here(*asked, "--json")[1])["finds"] == pytest.approx(report["finds"])
    assert "a spread of 0.014 between runs of one arm (seen so far)" in " ".join(cli_here(*asked)[1].split())


def test_status_counts_the_runs_that_tune(cli_here, card_study: Path) -> None:
    out = card_study.parent / "tuned"
    made = StudyDir.create(out, read_study(card_study))
    make_run(out / Trial("task", "last", 100, 1).place, grpo__steps=20)
    run = RunDir(out / Trial("task", "last", 100, 1).place)
    write_json(run.evaluations, {"after": {"step": 20}, "comparison": {"gain": 0.0}})
    facts = json.loads(cli_here("experiment", "status", str(out), "--json")[1])
    assert facts["tuning"] == {"done": 1, "running": 0, "failed": 0, "to come": 3}
    assert "To tune: 1 done, 0 running, 0 failed, 3 to come." in cli_here("experiment", "status", str(out))[1]
    made.write(made.read(), {"task/all": 0, "task/last": 1})
    assert json.loads(cli_here("experiment", "status", str(out), "--json")[1])["tuning"] is None
