"""A study that continues with other versions than it began with."""

from dataclasses import replace
from pathlib import Path

import pytest

from lowmem_rl.experiment.environment_changes import card_of_runs, changes_since, environment_here, mixed_environment
from lowmem_rl.experiment.page import remarks
from lowmem_rl.experiment.study import Study, parse_study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trials import Trial
from lowmem_rl.experiment.verdicts import compare_arms
from lowmem_rl.storage.run_dir import RunDir, read_json, write_json
from tests.run_maker import begin

STUDY = """
[study]
name = "s"
preset = "tiny-cpu"
seeds = [0]
baseline = "a"
[arms.a]
[arms.b]
"""
HERE = environment_here()


@pytest.fixture
def study() -> Study:
    return parse_study(STUDY, "s")


@pytest.fixture
def directory(study: Study, tmp_path: Path) -> StudyDir:
    """Of two runs one has begun, with what is installed here."""
    found = StudyDir.create(tmp_path / "study", study)
    record(found, "a")
    return found


def record(directory: StudyDir, arm: str, **others: object) -> RunDir:
    run = RunDir(directory.path / Trial("task", arm, 0).place)
    begin(run, {})
    versions = {name: value for name, value in HERE.items() if name not in ("commit", "card")}
    about = {"versions": versions | others, "commit": others.get("commit", HERE["commit"])}
    write_json(run.machine, about | {"gpu": others.get("gpu", HERE["card"])})
    return run


def test_the_same_machine_continues(study: Study, directory: StudyDir) -> None:
    assert changes_since(study, directory, HERE) == ""
    assert {"lowmem-rl", "torch", "transformers", "trl", "commit", "card"} <= HERE.keys()


@pytest.mark.parametrize(
    ("name", "key"),
    [("lowmem-rl", "lowmem-rl"), ("torch", "torch"), ("trl", "trl"), ("commit", "commit"), ("card", "gpu")],
)
def test_what_differs_is_named(study: Study, directory: StudyDir, name: str, key: str) -> None:
    record(directory, "a", **{key: "0.0.1"})
    found = changes_since(study, directory, HERE)
    assert found.startswith(f"{name} 0.0.1 -> ")
    assert "," not in found


def test_a_commit_is_shortened(study: Study, directory: StudyDir) -> None:
    record(directory, "a", commit="abcdef0123" * 4 + "-dirty")
    assert changes_since(study, directory, HERE).startswith("commit abcdef0123ab-dirty -> ")


def test_on_a_cluster_the_driving_machine_may_have_another_card(study: Study, directory: StudyDir) -> None:
    record(directory, "a", gpu="RTX A6000")
    cluster = replace(study, run=study.run.model_copy(update={"on": "slurm"}))
    assert changes_since(cluster, directory, HERE) == ""


def test_the_card_of_runs_is_that_of_the_first(study: Study, directory: StudyDir, tmp_path: Path) -> None:
    assert card_of_runs(study, StudyDir(tmp_path / "empty")) is None
    record(directory, "a", gpu=None)
    assert card_of_runs(study, directory) == "cpu"
    record(directory, "a", gpu="RTX A6000")
    assert card_of_runs(study, directory) == "RTX A6000"


def test_if_nothing_is_left_to_run_nothing_differs(study: Study, directory: StudyDir) -> None:
    for arm in ("a", "b"):
        run = record(directory, arm, torch="0.0.1")
        steps = read_json(run.config)["config"]["grpo"]["steps"]
        write_json(run.evaluations, {"after": {"step": steps}, "comparison": {"gain": 0.0}})
    assert changes_since(study, directory, HERE) == ""


def test_a_report_says_in_what_runs_differ(study: Study, directory: StudyDir) -> None:
    record(directory, "b")
    assert mixed_environment(study, directory) == ""
    record(directory, "b", trl="0.0.1")
    found = mixed_environment(study, directory)
    assert found.startswith("trl ")
    assert any("more than their arms: trl " in one for one in remarks(study, compare_arms(study, []), directory))


def test_a_strangers_record_is_one_line(study: Study, directory: StudyDir) -> None:
    record(directory, "a", torch="\x1b[2J\n" * 999)
    found = changes_since(study, directory, HERE)
    assert len(found) < 200
    assert found.isprintable()
    write_json(RunDir(directory.path / Trial("task", "a", 0).place).machine, {"versions": [1], "commit": {}})
    assert changes_since(study, directory, HERE).startswith("commit {} -> ")
