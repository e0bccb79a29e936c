"""Processes that a command starts on a simulated card are started on that card, however Python is called."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rehearsal.on_card import launcher
from tests.rehearsal.preloaded_python import FOLDER


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "executable", "/bin/echo")  # the script prints the command that it would run
    monkeypatch.setenv(FOLDER, str(tmp_path))  # no server is up
    return launcher("a6000", tmp_path)


@pytest.mark.parametrize("flags", [(), ("-P",)], ids=["plain", "as a worker"])
@pytest.mark.parametrize(
    ("module", "runs"),
    [
        ("lowmem_rl.export.plain_worker", "-m tests.rehearsal.on_card a6000 lowmem_rl.export.plain_worker 7"),
        ("lowmem_rl_bench.step.arm_worker", "-m tests.rehearsal.on_card a6000 lowmem_rl_bench.step.arm_worker 7"),
        ("lowmem_rl_cli", "-m tests.rehearsal.ask {folder}/socket lowmem_rl_cli 7"),
        ("lowmem_rl.verify.pool_worker", "{flags}-m lowmem_rl.verify.pool_worker 7"),
    ],
)
def test_a_module_that_needs_the_card_gets_it(
    started: Path, tmp_path: Path, flags: tuple[str, ...], module: str, runs: str
) -> None:
    done = subprocess.run([started, *flags, "-m", module, "7"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == runs.format(folder=tmp_path, flags="".join(f"{flag} " for flag in flags))


def test_a_worker_of_the_symbolic_pool_is_forked_if_its_server_is_up(started: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "math" / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("math/socket")  # the whole path may be too long for a socket
        command = [started, "-P", "-m", "lowmem_rl.verify.pool_worker", "7"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"-m tests.rehearsal.ask {address} lowmem_rl.verify.pool_worker 7"
