"""Shortcuts that Unsloth gives up by itself: a shortage of memory is planned for, a failed check is only noted."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.reports.html import render
from lowmem_rl.reports.run_record import read_record
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows
from tests.rehearsal.killed import adapter_of, die_after_checkpoint, killed_and_resumed, rows_of
from tests.rehearsal.stage import Stage

SETTINGS = (
    "rollout.engine=lowmem",  # auto times both, and times mean nothing here
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
            the_next_allocation_fails()
        return plain(self, *args)

    prefix_grouper.GroupLayout.extract_logps = short


def the_next_allocation_fails() -> None:
    from tests.rehearsal.card.state import STATE

    STATE.fail_at |= {STATE.allocations + 1}


def fails_with_shared_prompts_and_in_clipping() -> None:
    """Memory as before; and it runs out once more when the gradient of that step is clipped."""
    import torch

    fails_with_shared_prompts()
    plain, failed = torch.nn.utils.clip_grad_norm_, []

    def short(*args: Any, **kwargs: Any) -> Any:
        if not failed:
            failed.append(True)
            the_next_allocation_fails()
        return plain(*args, **kwargs)

    torch.nn.utils.clip_grad_norm_ = short


def differs_with_shared_prompts() -> None:
    """Unsloth's check of the kernel that shares prompts, a forward without a gradient, finds other log-probs."""
    import torch
    from unsloth.utils import prefix_grouper

    plain = prefix_grouper.GroupLayout.extract_logps

    def other(self: Any, *args: Any) -> Any:
        found = plain(self, *args)
        return found if torch.is_grad_enabled() else found - 100.0

    prefix_grouper.GroupLayout.extract_logps = other


def fails_and_dies() -> None:
    """Memory as before; and the process is killed when its second step is kept."""
    fails_with_shared_prompts()
    die_after_checkpoint()


def words(steps: int = 4) -> list[str]:
    return ["--preset=tiny-cpu", f"--steps={steps}", *(f"--set={setting}" for setting in SETTINGS)]


@pytest.fixture(scope="module")
def undisturbed(a6000: Stage, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, str]:
    run = RunDir(tmp_path_factory.mktemp("prefix-grouper") / "run")
    ended = a6000.lowmem("train", *words(), "--out", str(run.path), before=fails_with_shared_prompts)
    assert ended.code == 0, ended.output
    return run, ended.output


def test_prompts_that_are_no_longer_shared_are_reported_and_planned_for(undisturbed: tuple[RunDir, str]) -> None:
    run, output = undisturbed
    (row,) = read_rows(run.recoveries)
    assert (row["phase"], row["rows"], row["next_rows"], row["cause"]) == ("backward", 16, 8, "memory")
    assert "prompts are no longer shared in the update, 2 groups together" in row["why"]
    assert "Unsloth: prompts are no longer shared" in output
    assert "--set memory.micro_batch=8" in output
    rows = list(read_rows(run.metrics))
    assert [row.get("shortcuts_given_up") for row in rows] == [1.0, None, None, None]
    # One group at a time fits: its prompt is shared as before.
    assert read_json(run.engine)["update_shares_prompts"] is True
    assert set(Counter((row["step"], row["example_id"]) for row in read_rows(run.samples)).values()) == {8}


@pytest.mark.long
def test_a_kernel_that_fails_its_check_is_no_shortage_of_memory(a6000: Stage, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    ended = a6000.lowmem("train", *words(1), "--out", str(run.path), before=differs_with_shared_prompts)
    assert ended.code == 0, ended.output
    (row,) = read_rows(run.recoveries)
    assert (row["rows"], row["next_rows"], row["cause"]) == (16, 16, "kernel")
    assert "its check of a kernel failed" in ended.output
    assert "memory ran out" not in ended.output
    assert "memory ran out in step" not in render(read_record(run.path))


@pytest.mark.long
def test_a_step_whose_clipping_is_done_again_still_counts_what_was_given_up(a6000: Stage, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    ended = a6000.lowmem("train", *words(1), "--out", str(run.path), before=fails_with_shared_prompts_and_in_clipping)
    assert ended.code == 0, ended.output
    assert [row["phase"] for row in read_rows(run.recoveries)] == ["optimizer", "backward"]
    assert [row["shortcuts_given_up"] for row in read_rows(run.metrics)] == [1.0]


@pytest.mark.long
def test_a_resumed_run_does_without_what_unsloth_had_given_up(
    a6000: Stage, undisturbed: tuple[RunDir, str], tmp_path: Path
) -> None:
    """Without Unsloth's notes the resumed run would share prompts of two groups again: other rounding, more memory."""
    whole, _ = undisturbed
    resumed = killed_and_resumed(a6000, words(), tmp_path / "killed", fails_and_dies)
    assert rows_of(resumed) == rows_of(whole)
    assert adapter_of(resumed) == adapter_of(whole)
