"""The base install: what pyproject.toml names without extras, and nothing else."""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.run_maker import make_run

ROOT = Path(__file__).parents[2]
MOST_BYTES = 60_000_000
PROGRAM = "import sys; from lowmem_rl_cli.app import main; sys.exit(main())"


def base_distributions() -> set[str]:
    names: set[str] = set()
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    while wanted:
        requirement = Requirement(wanted.pop())
        name = requirement.name.lower().replace("_", "-")
        if name not in names and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            names.add(name)
            wanted += distribution(name).requires or []
    return names


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to the installed files of the base install."""
    folder = tmp_path_factory.mktemp("base")
    for name in base_distributions():
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")}:
            (folder / top).symlink_to(Path(str(installed.locate_file(top))))
    return folder


def run_in(base: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join(map(str, (base, ROOT, ROOT / "cli")))
    command = [sys.executable, "-S", "-c", PROGRAM, *arguments]
    return subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "train --preset tiny-cpu --out r",
        "train --preset tiny-cpu --out r --controls",
        "train --resume --out {run}",
        "eval tiny",
        "probe --preset tiny-cpu",
        "export {run} --to merged",
        "export {run} --to adapter",
        "scale-out --preset tiny-cpu --to trl --gpus 2 --out r",
        "samples {run} --prompt hi",
        "verify-resume",
        "profile --measure --preset tiny-cpu",
        "bench step",
        "bench verify",
    ],
)
def test_what_needs_the_stack_says_how_to_install_it(base: Path, tmp_path: Path, command: str) -> None:
    make_run(tmp_path / "run")
    done = run_in(base, *command.format(run=tmp_path / "run").split())
    assert done.returncode == 3, done.stderr
    what, how = done.stderr.splitlines()
    assert what.startswith("error: ")
    assert "not installed" in what
    assert "pip install 'lowmem-rl[train]'" in how
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "profile --preset qwen7b-a6000",
        "train --dry-run --preset tiny-cpu",
        "tasks check arithmetic",
        "rewards check --reward any_answer",
        "doctor {run}",
        "report {run}",
        "samples {run}",
    ],
)
def test_what_needs_no_model_works(base: Path, tmp_path: Path, command: str) -> None:
    make_run(tmp_path / "run")
    done = run_in(base, *command.format(run=tmp_path / "run").split())
    assert done.returncode == 0, done.stderr


def test_the_base_install_is_small() -> None:
    sizes = [
        file.size or 0
        for name in base_distributions()
        for file in distribution(name).files or ()
        if "__pycache__" not in file.parts
    ]
    assert 10_000_000 < sum(sizes) < MOST_BYTES
