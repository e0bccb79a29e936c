"""A small study of real runs: carried by this machine's processes, by Ray and by submitit, with the same results."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lowmem_rl.experiment.launch import Launcher, LocalLauncher
from lowmem_rl.experiment.on_ray import RayLauncher
from lowmem_rl.experiment.on_slurm import SlurmLauncher
from lowmem_rl.experiment.run_study import read_outcomes, run_study
from lowmem_rl.experiment.study import Study, parse_study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.verdicts import compare_arms

STUDY = """
[study]
name = "layers"
preset = "tiny-cpu"
seeds = [0]
baseline = "all"
[study.set]
"grpo.steps" = 4
"eval.examples" = 20
"logging.checkpoint_every" = 1
[arms.all]
[arms.last]
"trainable.layers" = "last:1"
"""

KILLS = 2

pytestmark = pytest.mark.usefixtures("preloaded")


@pytest.fixture(scope="module")
def study() -> Study:
    return parse_study(STUDY, "s")


@pytest.fixture(scope="module")
def one_by_one(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local") / "study"
    run(study, out, LocalLauncher(1, 0))
    return out


def run(study: Study, out: Path, launcher: Launcher) -> list[str]:
    lines: list[str] = []
    run_study(study, StudyDir(out) if out.exists() else StudyDir.create(out, study), launcher, lines.append)
    return lines


def results(out: Path) -> dict[str, object]:
    """Returns what a study measured: rows without times, evaluated items, the adapter's bytes."""
    found: dict[str, object] = {}
    for path in sorted(out.glob("runs/*/*/seed-*")):
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        kept = ("step", "loss", "grad_norm", "reward", "entropy", "completion_tokens", "num_tokens")
        found[str(path.relative_to(out))] = (
            [{key: row[key] for key in kept} for row in rows],
            (path / "eval" / "after.jsonl").read_text(),
            (path / "adapter" / "adapter_model.safetensors").read_bytes(),
        )
    return found


def kill_one(out: Path) -> Iterator[str]:
    """Kills the first training that has written a checkpoint, and yields its name."""
    while True:
        for lock in out.glob("runs/*/*/seed-*/.lock"):
            if any(lock.parent.glob("checkpoints/step-*")) and (owner := lock.read_text().split()):
                os.kill(int(owner[1]), signal.SIGKILL)
                yield lock.parent.name
                return
        time.sleep(0.05)


def killing(out: Path) -> threading.Thread:
    thread = threading.Thread(target=lambda: list(kill_one(out)), daemon=True)
    thread.start()
    return thread


def test_a_study_leaves_ordinary_runs_and_a_verdict(study: Study, one_by_one: Path) -> None:
    outcomes = read_outcomes(study, StudyDir(one_by_one))
    assert [(one.arm, one.status, one.steps) for one in outcomes] == [("all", "done", 4), ("last", "done", 4)]
    assert [one.trained_numbers for one in outcomes] == [135168, 45056]
    assert [one.num_seeds for one in compare_arms(study, outcomes).arms] == [1, 1]
    rows = json.loads((one_by_one / "results.json").read_text())["rows"]
    assert [row["pass_at_1"] for row in rows] == [one.pass_at_1 for one in outcomes]
    assert len((one_by_one / "results.csv").read_text().splitlines()) == 3


def test_run_again_it_does_nothing(study: Study, one_by_one: Path) -> None:
    assert run(study, one_by_one, LocalLauncher(1, 0)) == []


def test_a_moved_study_is_reported(study: Study, one_by_one: Path, tmp_path: Path, cli_here) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(one_by_one, moved)
    code, out, _ = cli_here("experiment", "report", str(moved))
    assert code == 0
    assert "1 seed: an exact test" in out
    assert "45,056" in out


def test_a_study_with_a_failed_run_is_reported_and_says_so(one_by_one: Path, tmp_path: Path, cli_here) -> None:
    out = tmp_path / "study"
    shutil.copytree(one_by_one, out)
    shutil.rmtree(out / "runs" / "task" / "last" / "seed-0")
    (out / "runs" / "task" / "last" / "seed-0").write_text("in the way")
    code, text, err = cli_here("experiment", "run", "--resume", "--out", str(out))
    assert code == 5
    assert "1 of 2 runs failed" in err
    assert "failed: task, last, seed 0 after 0 steps, exit code 7" in text
    assert (out / "report.html").is_file()


@pytest.mark.long
def test_ray_carries_two_at_once_and_a_killed_one_is_resumed(
    study: Study, one_by_one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    out = tmp_path / "ray"
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes a token there
    monkeypatch.setenv("LOWMEM_RL_OWN_ADDRESS", ray.util.get_node_ip_address())
    handler = signal.getsignal(signal.SIGTERM)  # Ray sets its own and leaves it
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        thread = killing(out)
        lines = run(study, out, RayLauncher(2, tmp_path))
        thread.join(1)
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)
    assert any("is resumed" in line for line in lines)
    assert results(out) == results(one_by_one)


def test_a_study_whose_driver_is_killed_loses_nothing(study: Study, one_by_one: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "study", tmp_path / "study.toml"
    file.write_text(STUDY)
    command = [sys.executable, "-m", "lowmem_rl", "experiment", "run"]
    drawn = random.Random(0)
    for kill in range(KILLS + 1):
        more = ["--resume", "--out", str(out)] if (out / "study.json").exists() else [str(file), "--out", str(out)]
        shutil.rmtree(out, ignore_errors=True) if not (out / "study.json").exists() else None
        driver = subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if kill < KILLS:
            steps = 4 * kill + drawn.randint(1, 2)  # of the first run, then of the second
            while sum(len(file.read_bytes().splitlines()) for file in out.rglob("metrics.jsonl")) < steps:
                assert driver.poll() is None
                time.sleep(0.02)
            driver.kill()  # its trainings go on: the next driver waits for them
        driver.wait()
    assert driver.returncode == 0
    assert results(out) == results(one_by_one)


def test_submitit_carries_a_study(study: Study, one_by_one: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    thread = killing(out)
    lines = run(study, out, SlurmLauncher(2, tmp_path, study.run.slurm, cluster="local"))
    thread.join(1)
    assert any("is resumed" in line for line in lines)
    assert results(out) == results(one_by_one)
