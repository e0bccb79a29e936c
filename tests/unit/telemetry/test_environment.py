"""The record of the machine, also on one that lacks what it asks."""

from pathlib import Path

import pytest

from lowmem_rl.engine.device import Device
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.telemetry.environment import environment_record


@pytest.mark.parametrize("git", [None, "not a program", "#!/bin/sh\nexit 128\n"])
def test_the_commit_is_unknown_without_a_git_that_runs(
    git: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if git is not None:
        (tmp_path / "git").write_text(git)
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment_record(this_machine(), Device("cpu", "float32"))["commit"] is None
