"""A whole step, ours against Unsloth's defaults: the same tokens and rewards, in turns (`lowmem_rl_bench.step`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from lowmem_rl.config.compose import resolve
from lowmem_rl_bench.prove.card import clocks
from lowmem_rl_bench.prove.processes import serve
from lowmem_rl_bench.step.arms import OURS, UNSLOTH
from lowmem_rl_bench.step.replays import Protocol, open_bench, replays

SET = "skewed"
"""Typical lengths and dead groups."""


def measure(order: Mapping[str, Any]) -> dict[str, Any]:
    """Returns each arm's seconds by phase, Unsloth's over ours, and the error of the first gradients."""
    composed = resolve(preset=order["preset"], settings=order["settings"])
    arms = (OURS, UNSLOTH)
    size = {"warmup": 1, "rounds": order["rounds"], "shape": order["shape"]}
    protocol = Protocol(arms[1:], sets=(SET,), reorders=False, **size)
    with open_bench(composed, protocol, _say) as bench:
        found = replays(bench, protocol, arms, "preset")[SET]
    seconds = {name: _phases(arm) for name, arm in found["arms"].items()}
    ours, theirs = seconds[OURS.name], seconds[UNSLOTH.name]
    return {
        "workload": found["workload"],
        "seconds": seconds,
        "ratios": {phase: theirs[phase] / ours[phase] for phase in ("rollout", "update")},
        "ratio": found["ratios"][UNSLOTH.name]["wall"],
        "rounds": {name: [taken["wall"] for taken in arm["rounds"]] for name, arm in found["arms"].items()},
        "gradient_error": found["gradient_errors"].get(UNSLOTH.name),
        "peak_bytes": {name: arm["peak_bytes"] for name, arm in found["arms"].items()},
        "engines": {name: arm["engine"] for name, arm in found["arms"].items()},
        "clocks": clocks(),
    }


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _phases(arm: Mapping[str, Any]) -> dict[str, float]:
    return {phase: spent["wall"] for phase, spent in arm["phases"].items()} | {"step": arm["seconds"]["wall"]}


if __name__ == "__main__":
    serve(measure)
