"""`bench step`, told once from top to bottom: the replays, then what was asked for besides, and the record."""

import shlex
import sys
from collections.abc import Mapping
from datetime import date
from typing import Any

from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.telemetry.environment import environment_record
from lowmem_rl_bench.step.ablations import ablations
from lowmem_rl_bench.step.arms import OURS, Arm
from lowmem_rl_bench.step.live_runs import run_live, same_noise
from lowmem_rl_bench.step.replays import SETS, Bench, Protocol, Tell, opened, replays
from lowmem_rl_bench.step.sweep import sweep

MAX_GRADIENT_ERROR, MAX_WEIGHT_ERROR = 1e-5, 1e-4
"""In float32, at the first step and after all of them; a speed beyond them is void."""
SHIM = (
    "On a CPU plain TRL runs with unsloth_zoo's PyTorch version of its fused log-prob head (patch_trl_fused_lm_head, "
    "loaded by path, nothing else of Unsloth); without it TRL 1.15 needs a GPU. LoRA weights stay in float32 in every "
    "arm, where TRL alone would cast those of a quantised model to bfloat16."
)


def measure(
    composed: ResolvedConfig,
    protocol: Protocol,
    tell: Tell = lambda text: None,
    *,
    with_live: bool = False,
    with_ablations: bool = False,
    with_sweep: bool = False,
) -> dict[str, Any]:
    """Returns the record.

    Raises what `training.preflight.prepare` raises, and `LowMemError` for an arm that dies, with its last lines.
    """
    with opened(composed, protocol, tell) as bench:
        arms = (OURS, *protocol.others)
        # Nobody trains a card's model in float32: it seldom fits there.
        precisions = ("preset",) if bench.device.is_gpu else protocol.precisions
        record = {"preset": composed.preset} | record_of(
            bench, protocol, {name: replays(bench, protocol, arms, name) for name in precisions}
        )
        if with_ablations:
            record["ablations"] = ablations(bench, protocol)
        if with_sweep:
            record["sweep"] = sweep(bench, protocol)
        if with_live:
            record["live"] = found = run_live(bench)
            for name, ratio in found["ratios"].items():
                record["ratios"][name]["live"] = ratio and ratio["median"]
            if not bench.device.is_gpu:
                record["same_noise"] = same_noise(bench)
        return record


def record_of(bench: Bench, protocol: Protocol, results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record of the replays; a ratio without equal gradients is None."""
    errors = {kind: worst(results, f"{kind}s") for kind in ("gradient_error", "weight_error")}
    limits = limits_of(results)
    is_valid = all(errors[kind] <= limit for kind, limit in limits.items())
    headline = results.get("preset") or results["fp32"]
    return {
        "date": date.today().isoformat(),
        "command": shlex.join(["lowmem-rl", *sys.argv[1:]]),
        "ratios": {
            arm.name: {f"replay_{name}": _headline(headline.get(name), arm, is_valid) for name in SETS} | {"live": None}
            for arm in protocol.others
        },
        **errors,
        "limits": limits,
        "is_valid": is_valid,
        "steps": {"warmup": protocol.warmup, "timed": protocol.rounds},
        "arms": {arm.name: arm.about for arm in (OURS, *protocol.others)},
        "plain_trl": None if bench.device.is_gpu else SHIM,
        "machine": environment_record(this_machine(), bench.device),
        "replay": dict(results),
    }


def limits_of(results: Mapping[str, Any]) -> dict[str, float]:
    """Returns the errors beyond which a speed is void.

    Without float32 the first gradient may differ as plain TRL's own does under another row order.
    """
    if "fp32" in results:
        return {"gradient_error": MAX_GRADIENT_ERROR, "weight_error": MAX_WEIGHT_ERROR}
    return {"gradient_error": max(found["row_order_error"] for found in results["preset"].values())}


def worst(results: Mapping[str, Any], kind: str) -> float:
    """Returns the largest error between ours and any other arm, in float32 where that was measured."""
    judged = results.get("fp32") or results["preset"]
    return max(error for found in judged.values() for error in found[kind].values())


def _headline(found: Mapping[str, Any] | None, arm: Arm, is_valid: bool) -> float | None:
    return found["ratios"][arm.name][found["clock"]]["median"] if found and is_valid else None
