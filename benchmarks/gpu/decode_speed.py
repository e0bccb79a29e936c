"""Milliseconds a decoded token for some numbers of rows: our engine on each kind of weights, and Unsloth's `generate`.

All sample the same number of tokens from the same prompts, with one loaded model, in turns. The time of few tokens is
taken from the time of many: what is left is decoding, without reading the prompts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from benchmarks.gpu.apart import serve
from benchmarks.gpu.card import clocks
from lowmem_rl.compose import resolve
from lowmem_rl.engine.device import device_on
from lowmem_rl.engine.policy import Policy, import_unsloth, load_policy, prepare_process
from lowmem_rl.hardware import this_machine

THEIRS = "unsloth"
OURS = ("quantized", "merged")
Way = Callable[[int, int], None]
"""(rows, tokens): samples so many of each."""


def measure(order: Mapping[str, Any]) -> dict[str, Any]:
    """Returns milliseconds a token by number of rows and way, and how many times as long Unsloth's takes."""
    config = resolve(preset=order["preset"], settings=order["settings"]).config
    device = device_on(this_machine(), config)
    prepare_process(config, device)
    import_unsloth()
    policy = load_policy(config, device)
    prompt = _prompt(policy, order["prompt_tokens"])
    ways, left_out = _ways(policy, prompt, order["prompt_tokens"] + 2 * order["tokens"][1])
    found = {str(rows): _in_turns(ways, rows, order) for rows in order["rows"]}
    return {"prompt_tokens": len(prompt), "rows": found, "left_out": left_out, "clocks": clocks()}


def _prompt(policy: Policy, tokens: int) -> list[int]:
    ids = policy.tokenize([{"role": "user", "content": "Count to a hundred."}])
    return (ids * tokens)[:tokens]


def _ways(policy: Policy, prompt: list[int], places: int) -> tuple[dict[str, Way], dict[str, str]]:
    """Returns what samples, and why what cannot be had cannot."""
    from lowmem_rl.engine.choice import build
    from lowmem_rl.engine.out_of_memory import OutOfMemory, tried
    from lowmem_rl.engine.rollout import Limits, sample
    from lowmem_rl.engine.sampling import GREEDY, names_of

    ways: dict[str, Way] = {}
    left_out = {}
    for weights in OURS:
        decoder = tried(lambda weights=weights: build(policy, weights, places))
        if isinstance(decoder, OutOfMemory):
            left_out[weights] = decoder.why
            continue

        def ours(rows: int, tokens: int, decoder: Any = decoder) -> None:
            sample(decoder, [prompt] * rows, names_of("speed", rows), GREEDY, Limits(frozenset(), tokens, rows))

        ways[weights] = ours
    ways[THEIRS] = _generate(policy, prompt)
    return ways, left_out


def _generate(policy: Policy, prompt: list[int]) -> Way:
    import torch

    from lowmem_rl.engine.generate import settings_of
    from lowmem_rl.engine.sampling import GREEDY

    def theirs(rows: int, tokens: int) -> None:
        ids = torch.tensor([prompt] * rows, device=policy.model.device)
        lengths = {"max_new_tokens": tokens, "min_new_tokens": tokens}
        made = policy.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pad_token_id=policy.tokenizer.pad_token_id,
            **settings_of(GREEDY),
            **lengths,
        )
        assert made.shape[1] == len(prompt) + tokens, "generate stopped early"

    def in_inference(rows: int, tokens: int) -> None:
        with policy.inference():
            theirs(rows, tokens)

    return in_inference


def _in_turns(ways: Mapping[str, Way], rows: int, order: Mapping[str, Any]) -> dict[str, Any]:
    """Returns each way's times of some rounds, the first, which compiles and fills buffers, thrown away."""
    few, many = order["tokens"]
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(order["rounds"] + 1):
        for name, way in ways.items():
            seconds = _seconds(way, rows, many) - _seconds(way, rows, few)
            if number:
                times[name].append(1000 * seconds / (many - few))
    return {name: _summary(times[name], times[THEIRS]) for name in ways}


def _summary(times: list[float], theirs: list[float]) -> dict[str, float]:
    ratios = [other / own for own, other in zip(times, theirs, strict=True)]
    return {
        "ms": median(times),
        "least_ms": min(times),
        "most_ms": max(times),
        "ratio": median(ratios),
        "least_ratio": min(ratios),
        "most_ratio": max(ratios),
    }


def _seconds(way: Way, rows: int, tokens: int) -> float:
    import torch

    torch.cuda.synchronize()
    began = time.perf_counter()
    way(rows, tokens)
    torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    serve(measure)
