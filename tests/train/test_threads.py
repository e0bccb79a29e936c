"""A run computes on as many threads from its first step to its last evaluation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lowmem_rl.engine.threads import VARIABLE
from lowmem_rl.storage.run_dir import RunDir, read_json

SMALL = ("--preset=tiny-cpu", "--set=eval.examples=2", "--set=grpo.prompts_per_step=2", "--set=memory.micro_batch=8")


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_resumed_and_an_evaluated_run_take_what_it_began_with(
    cli_here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setenv(VARIABLE, "2")
    done = cli_here("train", *SMALL, "--steps=1", f"--out={out}")
    assert (done.code, torch.get_num_threads()) == (0, 2)
    assert f"threads: 2 ({VARIABLE} is set)" in done.stderr
    recorded = read_json(RunDir(out).engine)["threads"]
    monkeypatch.setenv(VARIABLE, "1")
    for command in (("train", "--resume", "--steps=2", f"--out={out}"), ("eval", str(out), "--examples=3")):
        torch.set_num_threads(1)
        done = cli_here(*command)
        assert (done.code, torch.get_num_threads()) == (0, 2)
        assert read_json(RunDir(out).engine)["threads"] == recorded
