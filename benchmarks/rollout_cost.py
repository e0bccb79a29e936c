"""What a rollout costs apart from its tokens: the merged copy, the cache, the prompts, the check of the log-probs.

    .venv/bin/python benchmarks/rollout_cost.py

Times rollouts of one token on a CPU, and their parts, with savings and without, in blocks in turns: then other work of
the machine disturbs both equally. Prints the medians of the process's CPU seconds, and their ratio, as JSON.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
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
BLOCKS = 2
"""Of rollouts with and without savings, in turns."""


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
    """Returns the seconds of rollouts and of their parts, and their ratio to those without savings."""
    questions = [[{"role": "user", "content": f"What is {number} + 5?"}] for number in range(prompts)]
    rows = [ids for ids in map(sampler.policy.tokenize, questions) for _ in range(group_size)]
    taken: dict[str, list[float]] = {}
    parts = list(_parts(sampler, rows))
    for name in ("without", "now") * BLOCKS:
        with _savings(is_on=name == "now"):
            for part, run in parts:
                run()  # what is kept is there afterwards
                for _ in range(rounds):
                    began = time.process_time()
                    run()
                    taken.setdefault(f"{part}, {name}", []).append(time.process_time() - began)
    seconds = {name: round(median(times), 4) for name, times in taken.items()}
    return {
        "rows": len(rows),
        "prompt_tokens": [len(row) for row in rows[::group_size]],
        "rounds": rounds,
        "seconds": seconds,
        "ratio": {part: round(seconds[f"{part}, now"] / seconds[f"{part}, without"], 3) for part, _ in parts},
    }


def _parts(sampler: Any, rows: list[list[int]]) -> Iterator[tuple[str, Callable[[], object]]]:
    from dataclasses import replace

    from lowmem_rl.engine.backend import build, logprob_gap
    from lowmem_rl.engine.continuous_batching import sample
    from lowmem_rl.engine.sampling import SamplingParams, stream_names

    streams, params = stream_names("cost", len(rows)), SamplingParams.of(sampler.config.rollout)
    limits = replace(sampler.stopping_criteria(1, len(rows)), stop_ids=frozenset())
    width = max(map(len, rows)) + 1
    decoder = build(sampler.policy, sampler.backend.weights, width)
    checked = sample(decoder, rows, streams, params, limits)[:2]
    yield "whole rollout", lambda: sampler.rollout(rows, streams)
    yield "merged copy", lambda: build(sampler.policy, sampler.backend.weights, width)
    yield "prompts, cache, first token", lambda: sample(decoder, rows, streams, params, limits)
    yield "check", lambda: logprob_gap(sampler.policy, rows[:2], checked)


@contextmanager
def _savings(*, is_on: bool) -> Iterator[None]:
    """Turns it off that what all prompts begin with is read once."""
    from lowmem_rl.engine import continuous_batching

    found = continuous_batching.LEAST_BEGINNING
    if not is_on:
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
