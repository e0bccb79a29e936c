"""A run that is killed after a checkpoint, resumed, and compared with an undisturbed run."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.storage.run_dir import RunDir, read_rows
from lowmem_rl.telemetry.metrics import MEASURED
from tests.rehearsal.stage import RehearsalError, Stage

KEPT = 2
"""Steps that are kept when the process dies."""


def die_after_checkpoint() -> None:
    """Ends the process at once, as SIGKILL does, when the checkpoint is written."""
    from lowmem_rl.checkpointing import checkpointer

    plain = checkpointer.write_checkpoint

    def write(run_dir: Any, step: int, *args: Any) -> None:
        plain(run_dir, step, *args)
        if step == KEPT:
            os._exit(9)

    checkpointer.write_checkpoint = write


def killed_and_resumed(
    stage: Stage, words: Sequence[str], out: Path, dies: Callable[[], None] = die_after_checkpoint
) -> RunDir:
    """Returns a run that was killed and resumed."""
    with pytest.raises(RehearsalError, match="process died"):
        stage.lowmem("train", *words, "--out", str(out), before=dies)
    ended = stage.lowmem("train", "--resume", "--out", str(out))
    assert ended.code == 0, ended.output
    return RunDir(out)


def rows_of(run: RunDir) -> list[dict[str, Any]]:
    """Returns the rows of metrics without what the machine decides."""
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in read_rows(run.metrics)]


def adapter_of(run: RunDir) -> bytes:
    """Returns the adapter's weights, bit for bit."""
    return (run.adapter / "adapter_model.safetensors").read_bytes()
