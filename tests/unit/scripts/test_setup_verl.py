"""`scripts/setup-verl` up to what pip installs; `tests/verl` runs in what it makes."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]
PYTHON = """#!/bin/sh
[ "$1 $2" = "-m venv" ] && mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
exit 0
"""


def set_up(here: Path, *arguments: str, python: str) -> subprocess.CompletedProcess[str]:
    """Runs the script from another folder, with nothing on PATH but what it calls."""
    programs = here / "programs"
    programs.mkdir()
    for name in ("dirname", "mkdir", "cp", "sh"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (programs / "python3").write_text(python)
    (programs / "python3").chmod(0o755)
    command = [str(ROOT / "scripts" / "setup-verl"), *arguments]
    environment = os.environ | {"PATH": str(programs)}
    return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)


def test_a_folder_is_named_from_where_the_script_is_started(tmp_path: Path) -> None:
    done = set_up(tmp_path, "verl it's", python=PYTHON)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "verl it's" / "bin" / "python").is_file()
    assert f"LOWMEM_RL_VERL={tmp_path}/verl it's" in done.stdout


def test_without_a_python_that_verl_takes_it_ends_with_two_lines(tmp_path: Path) -> None:
    done = set_up(tmp_path, "verl", python="#!/bin/sh\nexit 1\n")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 2)
    assert "3.11 or 3.12" in done.stderr
    assert not (tmp_path / "verl").exists()
