"""What a rollout costs apart from its tokens: the merged copy, the cache, the prompts, the check of the log-probs.

    .venv/bin/python benchmarks/rollout_cost.py

Times rollouts of one token on a CPU, and their parts, with more and more savings, in turns: then other work of the
machine disturbs all equally. Prints the process's CPU seconds as JSON, and the ratios within a round.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from lowmem_rl.storage.cache import cache_dir

SETTINGS = (
    "model.bits=4",
    "task.levels=[0]",
    "task.prompt=bare",
    "grpo.max_completion_tokens=1",
    "memory.micro_batch=8",
    "memory.checkpointing=none",
    "rollout.weights=merged",
)
SMOLLM2 = Path(os.environ.get("LOWMEM_RL_SMOLLM2") or cache_dir() / "smollm2-135m-instruct")
NEVER = 10**9
STAGES = {
    "without": (),
    "prompts": ("prompts",),
    "now": ("prompts", "memory", "check"),
}
"""Savings that are on: what all prompts begin with is read once, copies keep their memory, and the update compares the
log-probs instead of the rollout."""


def main() -> None:
    """Measures and prints the record."""
    options = _options()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    from lowmem_rl.config.compose import resolve
    from lowmem_rl.engine.device import Device
    from lowmem_rl.engine.policy import load_policy, prepare_process
    from lowmem_rl.engine.sampler import Sampler

    shape = (f"grpo.prompts_per_step={options.prompts}", f"grpo.group_size={options.group_size}")
    settings = [*SETTINGS, *shape, f"memory.rollout_rows={options.prompts * options.group_size}"]
    config = resolve(preset="tiny-cpu", settings=[f"model.name={options.model}", *settings]).config
    device = Device("cpu", "float32")
    prepare_process(config, device)
    sampler = Sampler(load_policy(config, device), config)
    print(json.dumps(measure(sampler, options.prompts, options.group_size, options.rounds), indent=1))


def measure(sampler: Any, prompts: int, group_size: int, rounds: int) -> dict[str, Any]:
    """Returns the seconds of rollouts and of their parts, and the ratios to those with fewer savings."""
    import torch

    from lowmem_rl.engine.kept_copies import KeptCopies

    questions = [[{"role": "user", "content": f"What is {number} + 5?"}] for number in range(prompts)]
    rows = [ids for ids in map(sampler.policy.tokenize, questions) for _ in range(group_size)]
    taken: dict[str, dict[str, list[float]]] = {}
    parts, kept = dict(_parts(sampler, rows)), KeptCopies(keeps_memory=True)
    for number in range(rounds + 1):
        for stage, savings in STAGES.items():
            with _savings(sampler, kept, savings):
                for part, run in parts.items():
                    if part == "check" and "check" in savings:
                        continue
                    began = time.process_time()
                    run("check" in savings)
                    if number:  # in the first round what is kept is made
                        taken.setdefault(part, {}).setdefault(stage, []).append(time.process_time() - began)
    return {
        "rows": len(rows),
        "prompt_tokens": [len(row) for row in rows[::group_size]],
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "seconds": {part: {stage: spread(times) for stage, times in found.items()} for part, found in taken.items()},
        "ratio": {
            f"now / {stage}": spread([now / before for now, before in zip(whole["now"], whole[stage], strict=True)])
            for whole in (taken["whole rollout"],)
            for stage in ("without", "prompts")
        },
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns median, minimum and maximum."""
    return {name: round(of(values), 4) for name, of in (("median", median), ("min", min), ("max", max))}


def _parts(sampler: Any, rows: list[list[int]]) -> Iterator[tuple[str, Callable[[bool], object]]]:
    """Yields each part and what runs it; given whether the update compares."""
    from dataclasses import replace

    from lowmem_rl.engine.backend import build, logprob_gap
    from lowmem_rl.engine.continuous_batching import sample
    from lowmem_rl.engine.sampling import SamplingParams, stream_names

    streams, params = stream_names("cost", len(rows)), SamplingParams.of(sampler.config.rollout)
    limits = replace(sampler.stopping_criteria(1, len(rows)), stop_ids=frozenset())
    width = max(map(len, rows)) + 1
    decoder = build(sampler.policy, sampler.backend.weights, width)
    checked = sample(decoder, rows, streams, params, limits)[:2]
    yield "whole rollout", lambda is_late: sampler.rollout(rows, streams, compares=not is_late)
    yield "merged copy", lambda _: build(sampler.policy, sampler.backend.weights, width, sampler.kept)
    yield "prompts, cache, first token", lambda _: sample(decoder, rows, streams, params, limits)
    yield "check", lambda _: logprob_gap(sampler.policy, rows[:2], checked)


@contextmanager
def _savings(sampler: Any, kept: Any, names: Sequence[str]) -> Iterator[None]:
    """Turns on the savings that are named."""
    from lowmem_rl.engine import continuous_batching

    found = continuous_batching.LEAST_BEGINNING
    sampler.kept = kept if "memory" in names else None
    if "prompts" not in names:
        continuous_batching.LEAST_BEGINNING = NEVER
    try:
        yield
    finally:
        continuous_batching.LEAST_BEGINNING = found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=SMOLLM2, help="default: the folder that scripts/get_smollm2 makes"
    )
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
