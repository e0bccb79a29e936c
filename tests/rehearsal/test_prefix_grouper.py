"""Out of memory inside Unsloth's own shortcuts, which it catches: heard of, planned for, and kept in a checkpoint."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.runs import RunDir, read_json, read_rows
from tests.rehearsal.killed import adapter_of, dies_when_kept, rows_of, went_on
from tests.rehearsal.stage import Stage

SETTINGS = (
    "grpo.prompts_per_step=4",
    "memory.micro_batch=16",
    "grpo.max_completion_tokens=16",
    "rewards.random=1",
    "eval.examples=4",
    "eval.quick_examples=4",
    "eval.every=0",
    "logging.samples_every=1",
    "logging.checkpoint_every=1",
)


def fails_with_shared_prompts() -> None:
    """Memory runs out in the first forward with a gradient that shares prompts."""
    import torch
    from unsloth.utils import prefix_grouper

    plain, failed = prefix_grouper.GroupLayout.extract_logps, []

    def short(self: Any, *args: Any) -> Any:
        if torch.is_grad_enabled() and not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return plain(self, *args)

    prefix_grouper.GroupLayout.extract_logps = short


def fails_and_dies() -> None:
    """Memory as before; and the process is killed when its second step is kept."""
    fails_with_shared_prompts()
    dies_when_kept()


def words() -> list[str]:
    return ["--preset=tiny-cpu", "--steps=4", *(f"--set={setting}" for setting in SETTINGS)]


@pytest.fixture(scope="module")
def undisturbed(a6000: Stage, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, str]:
    run = RunDir(tmp_path_factory.mktemp("prefix-grouper") / "run")
    ended = a6000.lowmem("train", *words(), "--out", str(run.path), before=fails_with_shared_prompts)
    assert ended.code == 0, ended.output
    return run, ended.output


def test_prompts_that_are_no_longer_shared_are_told_of_and_planned_for(undisturbed: tuple[RunDir, str]) -> None:
    run, output = undisturbed
    (row,) = read_rows(run.recoveries)
    assert (row["phase"], row["rows"], row["next_rows"]) == ("backward", 16, 8)
    assert "prompts are no longer shared in the update, 2 groups together" in row["why"]
    assert "Unsloth: prompts are no longer shared" in output
    assert "--set memory.micro_batch=8" in output
    rows = list(read_rows(run.metrics))
    assert [row.get("shortcuts_given_up") for row in rows] == [1.0, None, None, None]
    # One group at a time fits: its prompt is shared as before.
    assert read_json(run.engine)["update_shares_prompts"] is True
    assert set(Counter((row["step"], row["example_id"]) for row in read_rows(run.samples)).values()) == {8}


def test_a_run_goes_on_without_what_unsloth_had_given_up(
    a6000: Stage, undisturbed: tuple[RunDir, str], tmp_path: Path
) -> None:
    """Without Unsloth's notes the resumed run would share prompts of two groups again: other rounding, more memory."""
    whole, _ = undisturbed
    resumed = went_on(a6000, words(), tmp_path / "killed", fails_and_dies)
    assert rows_of(resumed) == rows_of(whole)
    assert adapter_of(resumed) == adapter_of(whole)
