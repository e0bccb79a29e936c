"""How far our first gradient and plain TRL's are from the same gradient in float64: which is nearer to the truth?

    .venv/bin/python benchmarks/gradient_truth.py --model FOLDER

Replays one step of skewed lengths in float32 (`bench step`): ours, plain TRL, plain TRL with its rows in another order;
and plain TRL with weights, adapter and activations in float64. Its fused head makes log-probs in float32 even then.
Prints max |g - g'| / max |g'| over all LoRA weights as JSON.
"""

import argparse
import json
from dataclasses import replace
from datetime import date
from typing import Any

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.places import without_folder
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.telemetry.environment import environment_record
from lowmem_rl_bench.step.arms import OURS, TRL_FAIR, Arm, ArmTask
from lowmem_rl_bench.step.ratios import distance
from lowmem_rl_bench.step.replays import SETS, Bench, Protocol, open_bench, replay_config
from lowmem_rl_bench.step.round_robin import Weights, alive, take_turns

SETTINGS = ("grpo.prompts_per_step=4", "grpo.group_size=4", "memory.micro_batch=8")


def main() -> None:
    """Measures and prints the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="a model's name or folder; without it the embedded model")
    model = parser.parse_args().model
    composed = resolve(preset="tiny-cpu", settings=[*SETTINGS, f"model.name={model}"])
    with open_bench(composed, Protocol(others=(TRL_FAIR,), precisions=("fp32",))) as bench:
        found = gradients(bench)
        machine = environment_record(this_machine(), bench.device)
    truth = found.pop("float64")
    record = {
        "date": date.today().isoformat(),
        "model": without_folder(model),
        "to_float64": {name: distance(gradient, truth) for name, gradient in found.items()},
        "to_trl": {name: distance(found[name], found["trl"]) for name in ("ours", "trl_reordered")},
        "machine": machine,
    }
    print(json.dumps(record, indent=1))


def gradients(bench: Bench) -> dict[str, Weights]:
    """Returns the first gradient of each, one process after the other: four of a pretrained model fill the memory."""
    config = replay_config(bench.config, bench.shape, steps=2, precision="fp32")
    _, path = bench.workload(replace(bench.shape, **SETS["skewed"]), "skewed")

    def gradient(arm: Arm, dtype: Any, seed: int = 0) -> Weights:
        with alive((arm,), config, replace(bench.device, dtype=dtype), bench.folder) as process:
            task = ArmTask(str(path.with_name(f"{arm.name}-{dtype}-{seed}")), {}, seed=seed, workload=str(path))
            return take_turns(process, {arm.name: task}, 1)[arm.name].gradients

    return {
        "ours": gradient(OURS, "float32"),
        "trl": gradient(TRL_FAIR, "float32"),
        "trl_reordered": gradient(TRL_FAIR, "float32", seed=1),
        "float64": gradient(TRL_FAIR, "float64"),
    }


if __name__ == "__main__":
    main()
