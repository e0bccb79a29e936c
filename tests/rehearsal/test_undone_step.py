"""An optimizer step that fails half way is undone to the bit on the card, and its copy costs no wait."""

from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.storage.run_dir import RunDir, read_rows
from tests.rehearsal.killed import adapter_of
from tests.rehearsal.stage import Stage

SETTINGS = (
    "grpo.prompts_per_step=2",
    "memory.micro_batch=8",
    "grpo.max_completion_tokens=16",
    "rewards.random=1",
    "eval.examples=4",
    "eval.quick_examples=4",
    "eval.every=0",
    "optimizer.warmup_steps=0",
)
STEPS, WEIGHTS = 2, 5


def fails_half_way() -> None:
    """Memory runs out in the last step, when some of its weights have been updated: their states are there by then."""
    import torch
    from bitsandbytes.optim.optimizer import Optimizer2State

    plain, done = Optimizer2State.update_step, [0, 0]

    def update_step(self: Any, group: Any, p: Any, gindex: int, pindex: int) -> None:
        done[0] += self.state[p]["step"] == STEPS - 1
        if done == [WEIGHTS, 0]:
            done[1] = 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
        plain(self, group, p, gindex, pindex)

    Optimizer2State.update_step = update_step


@pytest.mark.long
@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_8bit"])
def test_a_step_that_fails_half_way_happens_once(a6000: Stage, optimizer: str, tmp_path: Path) -> None:
    words = ["--preset=tiny-cpu", f"--steps={STEPS}", f"--set=optimizer.name={optimizer}"]
    words += [f"--set={setting}" for setting in SETTINGS]
    runs = [RunDir(tmp_path / name) for name in ("undisturbed", "disturbed")]
    undisturbed = a6000.lowmem("train", *words, "--out", str(runs[0].path), counts_waits=True)
    disturbed = a6000.lowmem("train", *words, "--out", str(runs[1].path), before=fails_half_way)
    assert (undisturbed.code, disturbed.code) == (0, 0), disturbed.output
    assert [(row["step"], row["phase"]) for row in read_rows(runs[1].recoveries)] == [(STEPS, "optimizer")]
    assert adapter_of(runs[1]) == adapter_of(runs[0])
    ours = [wait for wait in undisturbed.report.waits if "grpo/oom_retry.py" in wait[1]]
    assert ours
    assert all(library.startswith(("bitsandbytes/", "optim/")) for _, _, library, _ in ours), ours
