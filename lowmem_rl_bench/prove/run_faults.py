"""The results of a short run, and what is wrong with them: read from its directory, without torch."""

from collections import Counter
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from lowmem_rl.storage.run_dir import Row, RunDir, read_json, read_rows
from lowmem_rl_bench.prove.processes import Failed

Found = dict[str, Any]


def trained(run: RunDir) -> Found:
    """Returns what a finished run measured: rewards, seconds and losses by step, evaluations, what sampled, peak."""
    rows, evaluations = list(read_rows(run.metrics)), read_json(run.evaluations)
    return {
        "rewards": [row["reward"] for row in rows],
        "step_seconds": [row["step_s"] for row in rows],
        "losses": [row["loss"] for row in rows],
        "log_prob_gap_nats": [row.get("rollout_gap_nats") for row in rows],
        "pass_at_1": {when: evaluations[when]["pass_at_1"] for when in ("before", "after")},
        "sampling": read_json(run.engine)["sampling"],
        "peak_bytes": max(row["peak_bytes"] for row in rows),
    }


def update_faults(rows: list[Row]) -> Iterator[str]:
    """Yields the steps whose loss or gradient is not finite: null in metrics.jsonl.

    A gradient scaler leaves out a step whose float16 gradient overflows.
    """
    for row in rows:
        if row["loss"] is None or (row["grad_norm"] is None and not row.get("optimizer_skipped")):
            yield f"step {row['step']}: loss {row['loss']}, gradient {row['grad_norm']}"


def learning_faults(run: RunDir) -> Iterator[str]:
    """Yields how many adapters did not move: each begins with B = 0."""
    from safetensors.numpy import load_file

    weights = load_file(run.adapter / "adapter_model.safetensors")
    learned = [weight.any() for name, weight in weights.items() if "lora_B" in name]
    if not learned or not all(learned):
        yield f"{sum(learned)} of {len(learned)} adapters have learned"


def group_faults(run: RunDir, steps: int) -> Iterator[str]:
    """Yields what is missing of the groups of all steps; the run keeps all its samples."""
    grpo = read_json(run.config)["config"]["grpo"]
    size, prompts = grpo["group_size"], grpo["prompts_per_step"]
    groups = Counter((row["step"], row["example_id"]) for row in read_rows(run.samples))
    if len(groups) != prompts * steps or set(groups.values()) != {size}:
        yield f"groups of {size} in {steps} steps: {sorted(groups.values())}"


def reward_rise(rewards: list[float]) -> float:
    """Returns the mean reward of the last third of the steps minus that of the first third."""
    third = max(len(rewards) // 3, 1)
    return fmean(rewards[-third:]) - fmean(rewards[:third])


def whole_groups(run: RunDir) -> list[int]:
    """Returns how many completions each group of a run of one step has; the run keeps all its samples.

    Raises `Failed` if a group or a completion is missing.
    """
    grpo = read_json(run.config)["config"]["grpo"]
    groups = list(Counter(row["example_id"] for row in read_rows(run.samples)).values())
    if groups != [grpo["group_size"]] * grpo["prompts_per_step"]:
        wanted = f"{grpo['prompts_per_step']} groups of {grpo['group_size']}"
        raise Failed(f"Completions by group: {groups}; {wanted} were to be sampled.")
    return groups
