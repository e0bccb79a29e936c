"""Resuming is exact on a card, too: its own random numbers, 8-bit states, paged ones, and float16's scaler."""

from pathlib import Path

import pytest

from lowmem_rl.storage.run_dir import RunDir
from tests.rehearsal.killed import adapter_of, killed_and_resumed, rows_of
from tests.rehearsal.stage import Stage

SETTINGS = (
    "grpo.prompts_per_step=2",
    "grpo.steps_per_rollout=2",
    "memory.micro_batch=8",
    "grpo.max_completion_tokens=16",
    "adapter.dropout=0.1",
    "rewards.random=1",
    "eval.examples=4",
    "eval.quick_examples=4",
    "eval.every=0",
    "logging.checkpoint_every=1",
    "optimizer.warmup_steps=0",
)
"""Dropout draws from the card's generator; the second of a rollout's two steps trains on what the first one kept."""


def words(optimizer: str) -> list[str]:
    settings = (*SETTINGS, f"optimizer.name={optimizer}")
    return ["--preset=tiny-cpu", "--steps=4", *(f"--set={setting}" for setting in settings)]


@pytest.mark.long
@pytest.mark.parametrize(
    ("card", "optimizer"), [("a6000", "adamw_8bit"), ("a6000", "paged_adamw_8bit"), ("t4", "adamw_8bit")]
)
def test_a_killed_run_resumes_bit_for_bit(stages: dict[str, Stage], card: str, optimizer: str, tmp_path: Path) -> None:
    stage, whole = stages[card], RunDir(tmp_path / "whole")
    ended = stage.lowmem("train", *words(optimizer), "--out", str(whole.path))
    assert ended.code == 0, ended.output
    resumed = killed_and_resumed(stage, words(optimizer), tmp_path / "killed")
    assert rows_of(resumed) == rows_of(whole)
    assert any(row["grad_norm"] for row in rows_of(whole)[2:])
    assert adapter_of(resumed) == adapter_of(whole)
    if card == "t4":
        assert rows_of(resumed)[-1]["loss_scale"] == 65536
