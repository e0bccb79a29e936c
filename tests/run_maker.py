"""Writes run directories as training writes them, for tests of their readers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.stats import wilson
from lowmem_rl.storage.run_dir import RunDir, append_row, write_json
from lowmem_rl.units import GIB

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">",
    "\x1b[2J\x1b]0;owned\x07 \u202egnp.exe \u2066\x9b31m",
    "</pre></script><!--<script>{{ 7 * 7 }} ${7 * 7} &amp; \"quoted\" 'too' \ud800",
    "A" * 1_000_000,
)


def make_run(
    path: Path,
    *,
    steps: int = 20,
    right: Sequence[int] = (4, 16),
    strict: Sequence[int] | None = None,
    hostile: bool = False,
    **settings: Any,
) -> Path:
    """Writes a run whose evaluation before and after finds the first `right` of 20 items right; returns its path."""
    run = RunDir(path)
    begin(run, settings)
    for step in range(1, steps + 1):
        append_row(run.metrics, metric_row(step, steps))
    for number in range(8):
        text = HOSTILE[number % 4] if hostile else f"<think>{number}</think>\\boxed{{{number}}}"
        append_row(run.samples, sample_row(steps, number, text))
    counts = zip((0, steps), right, strict or right, strict=True)
    results = [evaluate(run, "after" if step else "before", step, *count, hostile) for step, *count in counts]
    write_json(run.evaluations, {"before": results[0], "during": [], "after": results[1]})
    return path


def begin(run: RunDir, settings: dict[str, Any]) -> None:
    """Writes what a run writes before its first step."""
    config = RunConfig().model_dump()
    origins = {}
    for key, value in settings.items():
        section, name = key.split("__")
        config[section][name] = value
        origins[f"{section}.{name}"] = "--set"
    write_json(run.config, {"preset": "tiny-cpu", "config": config, "origins": origins})
    write_json(run.machine, {"gpu": "NVIDIA T4", "commit": "abc", "versions": {"torch": "2.14.1"}})
    estimate = {
        "peak_bytes": {"expected": GIB, "upper": 2 * GIB},
        "budget_bytes": 4 * GIB,
        "phases": {"rollout": {"weights": GIB // 2}, "backward": {"weights": GIB // 2, "activations": GIB // 2}},
        "step_seconds": {"low": 1.0, "high": 2.0},
    }
    write_json(run.estimate, estimate)


def metric_row(step: int, steps: int) -> dict[str, Any]:
    share = step / steps
    return {
        "step": step, "loss": 0.1, "grad_norm": 0.2, "reward": share, "kl": 0.01, "entropy": 0.2, "accuracy": share,
        "completion_tokens": 12.0, "longest_completion_tokens": 20, "truncated_share": 0.0, "informative_share": 0.5,
        "num_tokens": 100.0 * step, "scores/boxed_answer": share, "step_s": 2.0, "rollout_s": 1.0, "update_s": 0.75,
        "other_s": 0.25, "completion_tokens_per_s": 50.0, "peak_bytes": GIB,
    }  # fmt: skip


def sample_row(step: int, number: int, completion: str) -> dict[str, Any]:
    return {
        "step": step, "example_id": f"arithmetic/{number % 4}", "prompt": "What is 2 * 3?", "answer": "6",
        "completion": completion, "scores": {"boxed_answer": number / 8, "think_format": None}, "reward": number / 8,
        "tokens": 12, "truncated": number == 3,
    }  # fmt: skip


def evaluate(run: RunDir, name: str, step: int, right: int, strict: int, hostile: bool = False) -> dict[str, Any]:
    """Writes the rows of an evaluation of 20 items and returns its entry in eval.json."""
    for number in range(20):
        text = HOSTILE[number % 4] if hostile and step else f"\\boxed{{{number + step}}}"
        graded = {"correct": number < right, "strict": number < strict}
        asked = {"example_id": f"arithmetic/{number}", "prompt": f"What is {number} * 1?", "answer": str(number)}
        row = asked | {"completion": text, "tokens": 9, "truncated": False, "scores": {}}
        append_row(run.eval_items(name), row | graded)
    shares = {"pass_at_1": right, "strict_pass_at_1": strict}
    intervals = {f"{key}_interval": wilson(count, 20) for key, count in shares.items()}
    return {
        "task": "arithmetic", "split": "test", "step": step, "num_examples": 20, "seconds": 1.0,
        "completion_tokens": 9.0,
        **{key: count / 20 for key, count in shares.items()},
        **{key: {"low": interval.low, "high": interval.high} for key, interval in intervals.items()},
    }  # fmt: skip
