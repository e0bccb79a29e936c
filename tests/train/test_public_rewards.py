"""Reward functions as people have them for TRL and verl train unchanged: all in one run of two steps."""

import sys
from pathlib import Path

import pytest

from lowmem_rl.storage.run_dir import RunDir, read_rows

EXAMPLE = Path(__file__).parents[2] / "examples" / "trl_rewards.py"
DATA = Path(__file__).parents[1] / "data" / "public_rewards.py"
PUBLIC = (
    *("reward_number_found", "accuracy_reward", "token_length_reward", "asking_reward", "boxed_once"),
    *("repetition_penalty", "cosine_reward", "group_diversity", "compute_score", "gsm8k_score"),
)
NOTEBOOK = (
    *("correctness_reward_func", "int_reward_func", "strict_format_reward_func"),
    *("soft_format_reward_func", "xmlcount_reward_func"),
)


@pytest.mark.skipif(sys.platform == "win32", reason="rewards of a file run in processes that need a POSIX system")
def test_public_functions_train_a_step_each(cli_here, tmp_path) -> None:
    sizes = (
        "--set=eval.examples=2",
        "--set=eval.every=0",
        "--set=grpo.prompts_per_step=2",
        "--set=memory.micro_batch=16",
    )
    rewards = [f"--reward={DATA}:{name}=1" for name in PUBLIC] + [f"--reward={EXAMPLE}:{name}=0.5" for name in NOTEBOOK]
    outcome = cli_here("train", "--preset=tiny-cpu", *sizes, "--steps=2", *rewards, f"--out={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.stderr
    run = RunDir(tmp_path / "run")
    samples = list(read_rows(run.samples))
    for name in (*PUBLIC, *NOTEBOOK):
        assert all(isinstance(row["scores"][name], float) for row in samples), name
    # It saw all completions of its step at once, and the ids that were sampled.
    group = [row for row in samples if row["step"] == 1]
    texts = [row["completion"] for row in group]
    assert [row["scores"]["group_diversity"] for row in group] == [1 / texts.count(text) for text in texts]
    assert [row["scores"]["token_length_reward"] for row in group] == [-row["tokens"] / 64 for row in group]
    right = [row for row in samples if row["scores"]["accuracy_reward"]]
    assert right
    assert len(list(read_rows(run.metrics))) == 2
    assert "strict_format_reward_func' pays 0 for each of" in outcome.stderr
