"""`bench step` from start to end: the replays, the optional parts, and the record."""

import shlex
import sys
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.config.places import without_folder
from lowmem_rl.config.run_config import RunConfig, TrainableConfig
from lowmem_rl.errors import ConfigError
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.telemetry.environment import environment_record
from lowmem_rl_bench.step.ablations import ablations
from lowmem_rl_bench.step.arms import ARMS, OURS, Arm
from lowmem_rl_bench.step.live_runs import run_live, same_noise
from lowmem_rl_bench.step.progress import Progress, Report
from lowmem_rl_bench.step.replays import SETS, Bench, Protocol, open_bench, replays
from lowmem_rl_bench.step.sweep import sweep

Save = Callable[[Mapping[str, Any]], None]

_MAX_ERRORS = {"gradient_error": 1e-5, "weight_error": 1e-4}
"""In float32, at the first step and after all steps; above them a speed is void."""
_SHIM = (
    "On a CPU plain TRL runs with unsloth_zoo's PyTorch version of its fused log-prob head (patch_trl_fused_lm_head, "
    "loaded by path, nothing else of Unsloth); without it TRL 1.15 needs a GPU. LoRA weights stay in float32 in every "
    "arm, although TRL alone casts those of a quantised model to bfloat16."
)


def measure(
    composed: ResolvedConfig,
    protocol: Protocol,
    report: Report = lambda text: None,
    save: Save = lambda record: None,
    *,
    with_live: bool = False,
    with_ablations: bool = False,
    with_sweep: bool = False,
) -> dict[str, Any]:
    """Returns the record; `save` gets what there is of it after each stage, with `is_complete` false.

    Raises what `preflight.prepare` raises, `ConfigError` for what other stacks cannot train, and `LowMemError` with an
    arm's last lines if it dies.
    """
    _check_trainable(composed.config.trainable)
    _check_rows(composed.config, protocol)
    with open_bench(composed, protocol, report) as bench:
        model = without_folder(composed.config.model.name)
        about: dict[str, Any] = {"preset": composed.preset, "model": model, "is_complete": False}
        if protocol.savings:
            return _savings(bench, protocol, about, save)
        results = _all_replays(bench, protocol, lambda found: save(about | _record(bench, protocol, found)))
        record = about | _record(bench, protocol, results)
        parts = {"ablations": with_ablations, "sweep": with_sweep}
        for part in (name for name, is_wanted in parts.items() if is_wanted):
            record[part] = {"ablations": ablations, "sweep": sweep}[part](bench, protocol)
            save(record)
        if with_live:
            record["live"] = live = run_live(bench)
            for name, ratio in live["ratios"].items():
                if name in record["ratios"]:
                    record["ratios"][name]["live"] = ratio and ratio["median"]
            save(record)
            if not bench.device.is_gpu:
                record["same_noise"] = same_noise(bench)
        return record | {"is_complete": True}


def _savings(bench: Bench, protocol: Protocol, about: dict[str, Any], save: Save) -> dict[str, Any]:
    def as_record(found: Mapping[str, Any]) -> dict[str, Any]:
        return about | _record_of_savings(bench, protocol, found)

    found = ablations(bench, protocol, lambda some: save(as_record(some)))
    return as_record(found) | {"is_complete": True}


def _all_replays(bench: Bench, protocol: Protocol, save: Save) -> dict[str, Any]:
    """Returns the replays by precision; `save` gets those so far after each set."""
    arms, precisions = (OURS, *protocol.others), protocol.precisions_on(bench.device)
    stages = len(precisions) * len(protocol.sets)
    progress = Progress(bench.report, [arm.name for arm in arms], protocol.steps_on(bench.device), stages)
    results: dict[str, Any] = {}
    for name in precisions:

        def save_with(found: Mapping[str, Any], name: str = name) -> None:
            save({**results, name: dict(found)})

        results[name] = replays(bench, protocol, arms, name, progress, save_with)
    return results


def _check_trainable(trainable: TrainableConfig) -> None:
    """Raises `ConfigError` unless adapters learn, the same from start to end: all stacks train those."""
    if trainable.model_copy(update={"layers": "all"}) != TrainableConfig():
        what = "bench step compares adapters that learn from start to end: the other stacks train nothing else."
        raise ConfigError(what, hint="Leave out the settings of trainable; trainable.layers alone may be set.")


def _check_rows(config: RunConfig, protocol: Protocol) -> None:
    """Raises `ConfigError` if a step has fewer rows than an arm's own micro-batch."""
    rows = config.grpo.prompts_per_step * int(protocol.shape.get("group_size", config.grpo.group_size))
    for arm in () if protocol.savings else protocol.others:
        if (own := arm.settings.get("memory.micro_batch", 1)) > rows:
            what = f"A step has {rows} completions, fewer than the micro-batch of {own} that {arm.name} trains on."
            raise ConfigError(what, hint="Raise grpo.prompts_per_step or grpo.group_size, or leave the arm out.")


def _record(bench: Bench, protocol: Protocol, results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record of the replays. The speed is void, its ratios None, if the gradients are not equal."""
    compared = results.get("fp32") or results["preset"]
    errors = {
        kind: max((error for found in compared.values() for error in found[f"{kind}s"].values()), default=0.0)
        for kind in _MAX_ERRORS
    }
    limits = _MAX_ERRORS
    if "fp32" not in results:
        # Weights of other widths: the first gradient may differ as much as plain TRL's own does with other row orders.
        own = [found["row_order_error"] for found in compared.values() if "row_order_error" in found]
        if bench.device.dtype == "float32":
            own.append(_MAX_ERRORS["gradient_error"])
        limits = {"gradient_error": max(own)} if own else {}
    is_valid = all(errors[kind] <= limit for kind, limit in limits.items())
    headline = results.get("preset") or results["fp32"]

    def ratio(name: str, arm: Arm) -> float | None:
        found = headline.get(name)
        return found["ratios"][arm.name][found["clock"]]["median"] if found and is_valid else None

    return _heading(bench, protocol) | {
        "ratios": {
            arm.name: {f"replay_{name}": ratio(name, arm) for name in SETS} | {"live": None} for arm in protocol.others
        },
        **errors,
        "limits": limits,
        "is_valid": is_valid,
        "arms": {arm.name: arm.about for arm in (OURS, *protocol.others)},
        "plain_trl": None if bench.device.is_gpu else _SHIM,
        "replay": dict(results),
    }


def _record_of_savings(bench: Bench, protocol: Protocol, found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record of some savings alone; in float32 their gradients must be equal."""
    replay = found["replay"]["skewed"]
    error = max(replay["gradient_errors"].values(), default=0.0)
    limits = {"gradient_error": _MAX_ERRORS["gradient_error"]} if bench.device.dtype == "float32" else {}
    return _heading(bench, protocol) | {
        "ratios": {},
        "gradient_error": error,
        "limits": limits,
        "is_valid": all(error <= limit for limit in limits.values()),
        "arms": {name: ARMS[name].about for name in replay["arms"]},
        "plain_trl": None,
        "replay": {},
        "ablations": dict(found),
    }


def _heading(bench: Bench, protocol: Protocol) -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        "command": shlex.join(["lowmem-rl", *sys.argv[1:]]),
        "steps": {
            "warmup": protocol.warmup,
            "timed": protocol.rounds,
            "profiled": protocol.steps_on(bench.device) - protocol.steps,
        },
        "machine": environment_record(this_machine(), bench.device),
    }
