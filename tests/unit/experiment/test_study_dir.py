import json
import os
from pathlib import Path

import pytest

from lowmem_rl.checkpointing.resume import is_finished
from lowmem_rl.errors import ConfigError, RunDirError
from lowmem_rl.experiment.launch import LocalLauncher
from lowmem_rl.experiment.run_study import read_outcomes, run_study, write_results
from lowmem_rl.experiment.study import Study, parse_study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trials import final_trials
from lowmem_rl.storage.run_dir import RunDir
from tests.run_maker import make_run

TEXT = """
[study]
name = "s"
preset = "tiny-cpu"
seeds = [0, 1]
baseline = "a"
[study.set]
"grpo.steps" = 20
[arms.a]
[arms.b]
"trainable.layers" = "last:1"
"""


@pytest.fixture
def study() -> Study:
    return parse_study(TEXT, "s")


@pytest.fixture
def directory(study: Study, tmp_path: Path) -> StudyDir:
    """A study whose runs are done."""
    made = StudyDir.create(tmp_path / "study", study)
    for trial in final_trials(study):
        run = RunDir(make_run(made.path / trial.place, grpo__steps=20))
        found = json.loads(run.evaluations.read_text())
        run.evaluations.write_text(json.dumps(found | {"comparison": {"gain": 0.0}}))
        assert is_finished(run, 20)
    return made


def test_attempts_of_a_strangers_file_are_left_out_if_they_are_none(study: Study, directory: StudyDir) -> None:
    row = '{"trial": "runs/task/a/seed-0", "exit_code": NaN, "machine": {"x": NaN}, "seconds": NaN}\n'
    directory.trials.write_text(row)
    write_results(study, directory)
    first = json.loads(directory.results.read_text())["rows"][0]
    assert (first["exit_code"], first["machine"], first["attempts"]) == (None, None, 1)
    assert directory.minutes("task", "a") == 0.0


def test_results_that_cannot_be_written(study: Study, directory: StudyDir) -> None:
    directory.results.mkdir()
    with pytest.raises(RunDirError, match="Results cannot be written into .*: Is a directory"):
        write_results(study, directory)


def test_half_a_row_of_a_driver_that_was_killed_is_dropped(study: Study, directory: StudyDir) -> None:
    directory.trials.write_text('{"trial": "x"}\n{"trial": "y", "exi')
    run_study(study, directory, LocalLauncher(1, 0), lambda text: None)
    directory.append(next(final_trials(study)), exit_code=0)
    assert [len(rows) for rows in directory.attempts().values()] == [1, 1]


def test_a_directory_with_a_study_says_how_to_continue(study: Study, directory: StudyDir) -> None:
    with pytest.raises(RunDirError, match="holds a study") as error:
        StudyDir.create(directory.path, study)
    assert "--resume --out" in error.value.hint


def test_a_pipe_is_no_study(directory: StudyDir) -> None:
    directory.study_file.unlink()
    os.mkfifo(directory.study_file)
    with pytest.raises(RunDirError, match=r"no study\.toml"):
        directory.read()


def test_a_damaged_study_is_an_error_of_the_directory(directory: StudyDir) -> None:
    directory.study_file.write_text("[study")
    with pytest.raises(RunDirError, match="study.toml"):
        directory.read()


@pytest.mark.parametrize(("old", "new"), [("last:1", "first:1"), ("[0, 1]", "[0]")])
def test_a_study_that_was_edited_in_place_is_refused(directory: StudyDir, old: str, new: str) -> None:
    directory.study_file.write_text(TEXT.replace(old, new))
    with pytest.raises(RunDirError, match="has changed since the study began"):
        directory.read()


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("last:1", "first:1", "differs in arms: b"),
        ("[arms.b]", "[arms.c]\n[arms.b]", "differs in arms: c"),
        ("[0, 1]", "[1, 2]", "has runs of seed 0"),
        ('"s"', '"t"', "differs in name"),
    ],
)
def test_what_may_not_change_is_named(directory: StudyDir, old: str, new: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        directory.changed(parse_study(TEXT.replace(old, new), "s"))


def test_seeds_may_be_added(study: Study, directory: StudyDir) -> None:
    more = directory.changed(parse_study(TEXT.replace("[0, 1]", "[0, 1, 2]"), "s"))
    directory.write(more, {})
    assert directory.read().seeds == (0, 1, 2)
    states = [one.status for one in read_outcomes(more, directory)]
    assert states == ["done"] * 4 + ["to come"] * 2


@pytest.mark.parametrize("key", ["model.name", "task.path"])
def test_a_study_with_relative_files_continues_where_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    began, out = tmp_path / "began", tmp_path / "study"
    (began / "here").mkdir(parents=True)
    monkeypatch.chdir(began)
    directory = StudyDir.create(out, parse_study(TEXT.replace('"grpo.steps" = 20', f'"{key}" = "here"'), "s"))
    directory.check_place()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunDirError, match="relative to .*began, where it was started"):
        directory.check_place()


def test_a_study_without_files_continues_anywhere(directory: StudyDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory.path)
    directory.check_place()
