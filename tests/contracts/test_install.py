"""`scripts/setup` and the Makefile on different machines, simulated by small programs on PATH."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLD_PYTHON = '[ "$1" = --version ] && echo Python 3.10.4 && exit\nexit 1'
UV_WITHOUT_PYTHON = '[ "$1" = --version ] && exit\nexit 2'
UV_THAT_SHOWS_ITS_CALL = '[ "$1" = --version ] && exit\necho "$@" on "$UV_PYTHON"'


@pytest.fixture
def machine(tmp_path):
    """Returns a function that runs a command in a bare checkout with only the given programs on PATH."""
    for name in ("Makefile", "pyproject.toml", "scripts/setup"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)

    def run(*command: str, **programs: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "bin"
        path.mkdir(exist_ok=True)
        for tool in ("awk", "date", "dirname", "sh"):
            (path / tool).symlink_to(shutil.which(tool))
        for name, body in programs.items():
            (path / name).write_text(f"#!/bin/sh\n{body}\n")
            (path / name).chmod(0o755)
        executable = shutil.which(command[0]) or command[0]
        return subprocess.run(
            [executable, *command[1:]],
            cwd=tmp_path,
            env=os.environ | {"PATH": str(path)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_without_python_and_uv_setup_says_what_to_install(machine):
    done = machine("scripts/setup", "train")
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "Neither uv nor a Python with pip is on PATH.",
        "hint: install Python 3.11, 3.12 or 3.13 with pip, or uv, and run make again.",
    ]


def test_an_unsupported_python_is_named_with_the_supported_ones(machine):
    done = machine("scripts/setup", "train", python3=OLD_PYTHON, uv=UV_WITHOUT_PYTHON)
    assert done.returncode == 3
    assert done.stderr.startswith("lowmem-rl needs Python 3.11, 3.12 or 3.13; here is Python 3.10.4.\nhint: ")


@pytest.mark.parametrize(
    ("extras", "options"),
    [(["train"], "--extra train"), (["train", "dev"], "--compile-bytecode --extra train --extra dev")],
)
def test_setup_passes_the_python_on_path_and_the_extras_to_uv(machine, extras, options):
    python = f'exec {sys.executable} "$@"'
    done = machine("scripts/setup", *extras, python3=python, uv=UV_THAT_SHOWS_ITS_CALL)
    assert done.stdout == f"sync --inexact {options} on {sys.executable}\n"


@pytest.mark.parametrize("target", ["demo", "test"])
def test_what_is_installed_is_not_installed_again(machine, tmp_path, target):
    assert "scripts/setup" in machine("make", "--dry-run", target).stdout
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / f".{target}").touch()
    shutil.rmtree(tmp_path / "bin")
    assert "scripts/setup" not in machine("make", "--dry-run", target).stdout


def test_every_target_of_the_makefile_explains_itself(machine):
    targets = {line.split()[1] for line in machine("make", "help").stdout.splitlines()}
    assert {"demo", "test", "lint", "format", "clean", "help"} <= targets
