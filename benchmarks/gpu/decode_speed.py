"""Milliseconds a decoded token by number of rows: our engine on each kind of weights, and Unsloth's `generate`.

All sample the same number of tokens from the same prompts, with one loaded model, in turns. The time of few tokens is
subtracted from the time of many: the rest is decoding, without the prefill.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median
from typing import Any

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.device import device_on
from lowmem_rl.engine.policy import Policy, import_unsloth, load_policy, prepare_process
from lowmem_rl.models.hardware import this_machine
from lowmem_rl_bench.prove.card import clocks
from lowmem_rl_bench.prove.processes import serve

THEIRS = "unsloth"
OURS = ("quantized", "merged")
Way = Callable[[int, int], None]
"""(rows, tokens): samples so many tokens in so many rows."""


def measure(order: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields milliseconds a token by number of rows and way, and how many times as long Unsloth's takes.

    The result grows by a number of rows each time. A way is left out, for all or some numbers of rows, if it does not
    fit in memory.
    """
    config = resolve(preset=order["preset"], settings=order["settings"]).config
    device = device_on(this_machine(), config)
    prepare_process(config, device)
    import_unsloth()
    policy = load_policy(config, device)
    ids = policy.tokenize([{"role": "user", "content": "Count to a hundred."}])
    prompt = (ids * order["prompt_tokens"])[: order["prompt_tokens"]]
    ways, left_out = _ways(policy, prompt, order["prompt_tokens"] + 2 * order["tokens"][1])
    found: dict[str, Any] = {"prompt_tokens": len(prompt), "rows": {}, "left_out": left_out}
    for rows in order["rows"]:
        times, too_large = in_turns(ways, rows, order)
        found["rows"][str(rows)] = {name: summary(own, times.get(THEIRS, [])) for name, own in times.items()}
        left_out |= {f"{name}, {rows} rows": why for name, why in too_large.items()}
        yield found | {"clocks": clocks()}


def _ways(policy: Policy, prompt: list[int], places: int) -> tuple[dict[str, Way], dict[str, str]]:
    """Returns the ways to sample, and why others are left out."""
    from lowmem_rl.engine.backend import build
    from lowmem_rl.engine.continuous_batching import StoppingCriteria, sample
    from lowmem_rl.engine.oom import OutOfMemory, catch_oom
    from lowmem_rl.engine.sampling import GREEDY, stream_names

    ways: dict[str, Way] = {}
    left_out = {}
    for weights in OURS:
        decoder = catch_oom(lambda weights=weights: build(policy, weights, places))
        if isinstance(decoder, OutOfMemory):
            left_out[weights] = decoder.why
            continue

        def ours(rows: int, tokens: int, decoder: Any = decoder) -> None:
            sample(
                decoder,
                [prompt] * rows,
                stream_names("speed", rows),
                GREEDY,
                StoppingCriteria(frozenset(), tokens, rows),
            )

        ways[weights] = ours
    ways[THEIRS] = _generate(policy, prompt)
    return ways, left_out


def _generate(policy: Policy, prompt: list[int]) -> Way:
    import torch

    from lowmem_rl.engine.hf_generate import settings_of
    from lowmem_rl.engine.sampling import GREEDY

    def theirs(rows: int, tokens: int) -> None:
        ids = torch.tensor([prompt] * rows, device=policy.model.device)
        with policy.inference():
            generated = policy.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pad_token_id=policy.tokenizer.pad_token_id,
                **settings_of(GREEDY),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
            )
        assert generated.shape[1] == len(prompt) + tokens, "generate stopped early"

    return theirs


def in_turns(
    ways: Mapping[str, Way], rows: int, order: Mapping[str, Any]
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Returns each way's milliseconds a token in some rounds, and why memory ran out in the others.

    The first round, which compiles and fills buffers, does not count.
    """
    from lowmem_rl.engine.oom import OutOfMemory, catch_oom

    times: dict[str, list[float]] = {name: [] for name in ways}
    too_large: dict[str, str] = {}
    for number in range(order["rounds"] + 1):
        for name in [*times]:
            spent = catch_oom(partial(_token_ms, ways[name], rows, order["tokens"]))
            if isinstance(spent, OutOfMemory):
                too_large[name] = spent.why
                del times[name]
            elif number:
                times[name].append(spent)
    return times, too_large


def summary(times: list[float], theirs: list[float]) -> dict[str, float | None]:
    """Returns milliseconds a token, and the ratio of Unsloth's to them, None if no round has both.

    Because of noise, many tokens can take less time than few: such a round has no ratio.
    """
    ratios = [other / own for own, other in zip(times, theirs, strict=False) if own > 0 and other > 0]
    return {
        "ms": median(times),
        "least_ms": min(times),
        "most_ms": max(times),
        "ratio": median(ratios) if ratios else None,
        "least_ratio": min(ratios, default=None),
        "most_ratio": max(ratios, default=None),
        "rounds_compared": len(ratios),
    }


def _token_ms(way: Way, rows: int, tokens: tuple[int, int]) -> float:
    few, many = tokens
    return 1000 * (_seconds(way, rows, many) - _seconds(way, rows, few)) / (many - few)


def _seconds(way: Way, rows: int, tokens: int) -> float:
    import torch

    torch.cuda.synchronize()
    began = time.perf_counter()
    way(rows, tokens)
    torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    serve(measure)
