"""The loop over trials, with a launcher whose jobs end as a list says."""

import json
import os
from collections import deque
from pathlib import Path

import pytest

from lowmem_rl.errors import RunDirError
from lowmem_rl.experiment.launch import Ended, Job, LocalLauncher
from lowmem_rl.experiment.node import start
from lowmem_rl.experiment.run_trials import TrialRunner
from lowmem_rl.experiment.study import Study, parse_study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trials import Trial, final_trials
from lowmem_rl.storage.lock import locked

TEXT = """
[study]
name = "s"
preset = "tiny-cpu"
seeds = [0]
baseline = "a"
[study.set]
"grpo.steps" = 2
[arms.a]
[arms.b]
"trainable.layers" = "last:1"
[run]
retries = 1
"""


class ListedEnds:
    """A launcher whose jobs end at once, with the next code of a list; a checkpoint may be left."""

    jobs = 1

    def __init__(self, codes: list[tuple[int | None, int]], out: Path) -> None:
        self.codes, self.out = deque(codes), out
        self.started: list[Job] = []

    def start(self, job: Job) -> None:
        self.started.append(job)

    def wait(self) -> Ended:
        job, (code, step) = self.started[-1], self.codes.popleft()
        run = self.out / job.name
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.json").write_text(json.dumps({"config": {"grpo": {"steps": 2}}, "origins": {}}))
        if step:
            (run / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
        return Ended(job.name, code, "here")

    def stop(self) -> None:
        pass


@pytest.fixture
def study() -> Study:
    return parse_study(TEXT, "s")


def run(study: Study, out: Path, codes: list[tuple[int | None, int]]) -> tuple[list[Job], list[dict[str, object]]]:
    directory = StudyDir.create(out, study)
    launcher = ListedEnds(codes, out)
    TrialRunner(study, directory, launcher, lambda text: None).run([next(final_trials(study))])
    rows = [row for rows in directory.attempts().values() for row in rows]
    return launcher.started, rows


def test_a_trial_is_an_ordinary_command_line(study: Study, tmp_path: Path) -> None:
    jobs, _ = run(study, tmp_path / "s", [(0, 0)])
    assert jobs[0].arguments[:3] == ("train", "--preset", "tiny-cpu")
    assert "--set=seed=0" in jobs[0].arguments
    assert "--set=grpo.steps=2" in jobs[0].arguments


def test_a_preempted_trial_is_resumed(study: Study, tmp_path: Path) -> None:
    jobs, rows = run(study, tmp_path / "s", [(130, 1), (-15, 2), (None, 0), (0, 0)])
    assert [job.arguments[:2] for job in jobs[1:]] == [("train", "--resume")] * 3
    assert [row["exit_code"] for row in rows] == [130, -15, None, 0]


@pytest.mark.parametrize("code", [2, 4, 6, 7, 8])
def test_what_another_attempt_cannot_change_is_not_tried_again(study: Study, tmp_path: Path, code: int) -> None:
    jobs, rows = run(study, tmp_path / "s", [(code, 0)])
    assert len(jobs) == 1
    assert rows[-1]["failed"] is True


@pytest.mark.parametrize("code", [1, 3, 5, -9])
def test_an_error_is_retried_as_often_as_the_study_says(study: Study, tmp_path: Path, code: int) -> None:
    jobs, rows = run(study, tmp_path / "s", [(code, 0), (code, 0)])
    assert len(jobs) == 2
    assert [row["failed"] for row in rows] == [False, True]


def test_attempts_that_come_further_do_not_count(study: Study, tmp_path: Path) -> None:
    jobs, rows = run(study, tmp_path / "s", [(5, 1), (5, 2), (5, 3), (0, 0)])
    assert len(jobs) == 4
    assert not any(row["failed"] for row in rows)


def test_a_stopped_attempt_is_recorded_with_its_time(study: Study, tmp_path: Path) -> None:
    class Stopped(ListedEnds):
        def wait(self) -> Ended:
            raise KeyboardInterrupt

    directory = StudyDir.create(tmp_path / "s", study)
    trial = next(final_trials(study))
    with pytest.raises(KeyboardInterrupt):
        TrialRunner(study, directory, Stopped([], tmp_path / "s"), lambda text: None).run([trial])
    (row,) = directory.attempts()[trial.name]
    assert (row["exit_code"], row["failed"]) == (130, False)
    assert row["seconds"] >= 0


def test_nothing_is_removed_through_a_link(study: Study, tmp_path: Path) -> None:
    trial, out, other = next(final_trials(study)), tmp_path / "s", tmp_path / "other"
    directory = StudyDir.create(out, study)
    kept = other / trial.place.relative_to("runs") / "kept"
    kept.mkdir(parents=True)
    (out / "runs").symlink_to(other)
    with pytest.raises(RunDirError, match="leads through a link"):
        TrialRunner(study, directory, ListedEnds([], out), lambda text: None).run([trial])
    assert kept.exists()


def test_logs_of_different_trials_are_different_files(tmp_path: Path) -> None:
    directory = StudyDir(tmp_path)
    assert directory.log(Trial("t-a", "b", 0)) != directory.log(Trial("t", "a-b", 0))


def test_a_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "precious")
    with pytest.raises(RunDirError, match="cannot be written: Too many levels of symbolic links"):
        start(("--version",), tmp_path / "log", {})
    assert not (tmp_path / "precious").exists()


def test_a_cpu_runs_no_more_at_once_than_it_has_cores() -> None:
    assert LocalLauncher(10_000, 0).jobs == os.cpu_count()
    assert LocalLauncher(4, 2).jobs == 2


def test_seeds_are_outermost_and_arms_shuffled_within() -> None:
    study = parse_study(TEXT.replace("[0]", "[0, 1, 2, 3, 4, 5]"), "s")
    order = [(trial.seed, trial.arm) for trial in final_trials(study)]
    assert [seed for seed, _ in order] == sorted(seed for seed, _ in order)
    assert len({tuple(arm for seed, arm in order if seed == block) for block in study.seeds}) == 2
    assert order == [(trial.seed, trial.arm) for trial in final_trials(study)]


def test_places_differ() -> None:
    assert Trial("t", "a", 3).place == Path("runs/t/a/seed-3")
    assert Trial("t", "a", 3, 1).place == Path("tune/t/a/1/seed-3")


def test_a_trial_that_another_process_trains_keeps_no_other_from_running(tmp_path: Path) -> None:
    study = parse_study(TEXT, "s")
    first, second = final_trials(study)
    directory = StudyDir.create(tmp_path / "s", study)
    held = tmp_path / "s" / first.place
    held.mkdir(parents=True)
    launcher = ListedEnds([(0, 0), (0, 0)], tmp_path / "s")
    runner = TrialRunner(study, directory, launcher, lambda text: None)
    waiting, running = deque([first, second]), dict[str, Trial]()
    with locked(held / ".lock", lambda text: None):
        runner._fill(waiting, running)
    assert [*running] == [second.name]
    assert [*waiting] == [first]


def test_a_command_that_outlives_its_study_is_seen_before_it_has_a_run_directory(study: Study, tmp_path: Path) -> None:
    directory, trial = StudyDir.create(tmp_path / "s", study), next(final_trials(study))
    process = start(("presets", "list"), directory.log(trial), {})
    assert directory.is_in_use(trial)
    assert process.wait(60) == 0
    assert not directory.is_in_use(trial)
    assert "tiny-cpu" in directory.log(trial).read_text()


def test_a_trial_that_another_process_has_taken_is_waited_for(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "s"
    directory, trial = StudyDir.create(out, study), next(final_trials(study))
    runner = TrialRunner(study, directory, ListedEnds([(7, 0)], out), lambda text: None)
    runner._start(trial)
    ended = runner.launcher.wait()
    with locked(out / trial.place / ".lock", lambda text: None):
        assert runner._is_to_repeat(trial, ended)
    assert not runner._is_to_repeat(trial, ended)
