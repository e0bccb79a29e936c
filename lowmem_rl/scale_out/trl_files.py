"""The files of a run for TRL and accelerate: `trl.json` and `accelerate.yaml`."""

from pathlib import Path
from typing import Any

from lowmem_rl.config.layer_choice import layers_of
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.grpo.prompt_order import prompts_asked
from lowmem_rl.grpo.train_dataset import prompts_needed
from lowmem_rl.scale_out.cluster import Cluster
from lowmem_rl.trl_adapter.grpo_args import grpo_arguments

_SAVE_STEPS = 50
"""Steps between checkpoints if the run makes one every ten minutes: transformers counts steps only."""
_VARIANTS = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern")


def trl_settings(
    config: RunConfig, device: Device, cluster: Cluster, depth: int, *, prefill: str, adapter: str | None
) -> dict[str, Any]:
    """Returns what `train.py` reads; `adapter` is the folder of the one to continue with."""
    return {
        "model": config.model.name,
        "revision": config.model.revision,
        "dtype": device.dtype,
        "on_cpu": not device.is_gpu,
        "quantization": _quantization(config, device),
        "adapter": adapter,
        "lora": _lora(config, depth),
        "max_prompt_tokens": config.grpo.max_prompt_tokens,
        "prompts": prompts_needed(config) if config.curriculum.by == "none" else prompts_asked(config),
        "rewards": {name: weight for name, weight in config.rewards.items() if weight != 0},
        "prefill": prefill,
        "max_reward_error_share": config.health.max_reward_error_share,
        "grpo_config": _grpo_config(config, device, cluster),
    }


def _quantization(config: RunConfig, device: Device) -> dict[str, Any] | None:
    """Returns the arguments of `transformers.BitsAndBytesConfig`: as Unsloth quantises."""
    if config.model.bits == 16:
        return None
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": device.dtype,
    }


def _lora(config: RunConfig, depth: int) -> dict[str, Any]:
    layers, adapter = layers_of(config.trainable.layers, depth), config.adapter
    arguments = {
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": list(adapter.targets),
        **({} if len(layers) == depth else {"layers_to_transform": list(layers)}),
    }
    return arguments | {key: value for key in _VARIANTS if (value := getattr(adapter, key))}


def _grpo_config(config: RunConfig, device: Device, cluster: Cluster) -> dict[str, Any]:
    """Returns the run's own arguments of `trl.GRPOConfig`, its micro-batches divided over the cards."""
    own = grpo_arguments(config, device, Path(cluster.name))
    shared = {key: own[key] // cluster.cards for key in ("gradient_accumulation_steps", "steps_per_generation")}
    return (
        own
        | shared
        | {
            "ddp_find_unused_parameters": False,
            "save_strategy": "steps",
            "save_steps": config.logging.checkpoint_every or _SAVE_STEPS,
            "save_total_limit": config.logging.keep_checkpoints,
            "report_to": list(config.logging.report_to) or "none",
        }
    )


def accelerate_settings(device: Device, cards: int) -> dict[str, Any]:
    """Returns the configuration of `accelerate launch`: a process a card, on a port that is free."""
    types = {"bfloat16": "bf16", "float16": "fp16", "float32": "no"}
    return {
        "compute_environment": "LOCAL_MACHINE",
        # Also without a card: it means torchrun, and MULTI_CPU would mean mpirun. Processes without one speak gloo.
        "distributed_type": "MULTI_GPU" if cards > 1 else "NO",
        "use_cpu": not device.is_gpu,
        "num_machines": 1,
        "num_processes": cards,
        "machine_rank": 0,
        "main_process_port": 0,
        "mixed_precision": types[device.dtype],
    }
