"""`train --dry-run`: the resolved config, the exact arguments of the stack, the checks of data, prompts and rewards.

Needs no card, no network and no torch. On a machine without the preset's card, the arguments are for that card. What is
not on this disk is not checked, and a note names it.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.config.layer_choice import layers_of, text_of
from lowmem_rl.config.notices import notices
from lowmem_rl.config.run_config import RunConfig, TrainableConfig
from lowmem_rl.engine.device import Device, check_dtype, device_of, device_on
from lowmem_rl.engine.policy import adapter_arguments, load_arguments, tinylora_arguments
from lowmem_rl.entrypoints.data_check import check_data
from lowmem_rl.entrypoints.preflight import check_settings, plan_anywhere
from lowmem_rl.errors import LowMemError
from lowmem_rl.grpo.prompt_order import rates_of
from lowmem_rl.models.hardware import find_card, this_machine
from lowmem_rl.planning.gate import gate
from lowmem_rl.planning.overrides import planner_origins
from lowmem_rl.planning.plan import Plan
from lowmem_rl.planning.selection_notes import selection_notes
from lowmem_rl.signal.pass_rate import PassRate
from lowmem_rl.trl_adapter.grpo_args import (
    Adjustment,
    adjustments,
    grpo_arguments,
    micro_batches_per_step,
    unsloth_arguments,
)


@dataclass(frozen=True, slots=True)
class DryRun:
    """Everything that is decided before a run starts."""

    preset: str
    card: str
    device: Device
    config: RunConfig
    origins: dict[str, str]
    from_pretrained: dict[str, Any]
    get_peft_model: dict[str, Any]
    """Empty if whole weights learn."""
    whole_weights: dict[str, Any]
    """What learns in place of an adapter; empty if an adapter learns."""
    grpo_config: dict[str, Any]
    unsloth_grpo_config: dict[str, Any]
    adjustments: tuple[Adjustment, ...]
    plan: Plan
    refusals: tuple[LowMemError, ...]
    """The errors that would end `train` before it loads the model, unless forced."""
    faults: tuple[LowMemError, ...]
    """Those of them that are about data, prompts or rewards."""
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        planned = self.plan.to_json()
        return {name: getattr(self, name) for name in self.__slots__ if name not in ("plan", "faults")} | {
            "device": asdict(self.device),
            "config": self.config.model_dump(mode="json"),
            "adjustments": [asdict(adjustment) for adjustment in self.adjustments],
            "verdict": planned["verdict"],
            "pass_rate": planned["pass_rate"],
            "refusals": [{"error": str(one), "hint": one.hint, "exit_code": one.exit_code} for one in self.refusals],
        }


def dry_run(composed: ResolvedConfig, out: Path, pass_rate: PassRate | None = None, *, force: bool = False) -> DryRun:
    """Returns what `train` would do into `out`; the gate and the checks of data only report.

    Raises `ConfigError` as `train` would, and `TaskError` if the curriculum's pass rates are not valid.
    """
    rewards, task = check_settings(composed.config)
    rates = rates_of(composed.config)
    planned = plan_anywhere(composed, pass_rate)
    config, machine, depth = planned.config, this_machine(), planned.target.shape.num_layers
    is_whole = config.trainable.method == "full"
    device = device_on(machine, composed.config)
    if machine.card is None and composed.card != "cpu":
        device = device_of(find_card(composed.card), composed.config)
    check_dtype(config, device)
    checked = check_data(config, rewards, task, rates, force=force)
    return DryRun(
        preset=composed.preset,
        card=composed.card,
        device=device,
        config=config,
        origins=dict(composed.origins) | planner_origins(composed.config),
        from_pretrained=load_arguments(config, device),
        get_peft_model={} if is_whole else _adapter_arguments(config, device, depth),
        whole_weights=_whole_weights(config, depth) if is_whole else {},
        grpo_config=grpo_arguments(config, device, out),
        unsloth_grpo_config=unsloth_arguments(config, device),
        adjustments=tuple(adjustments(config, device)),
        plan=planned,
        refusals=(*gate(planned, force=True), *checked.refusals),
        faults=tuple(checked.refusals),
        notes=(*_notes(config, device), *selection_notes(config, planned.target.shape), *checked.notes),
    )


def _adapter_arguments(config: RunConfig, device: Device, depth: int) -> dict[str, Any]:
    trainable, is_tiny = config.trainable, config.adapter.peft_type == "tinylora"
    found = tinylora_arguments(config, depth) if is_tiny else adapter_arguments(config, device, depth)
    return found if trainable.select == "none" else found | {"layers_to_transform": _chosen(trainable)}


def _whole_weights(config: RunConfig, depth: int) -> dict[str, Any]:
    trainable = config.trainable
    chosen = text_of(layers_of(trainable.layers, depth))
    return {
        "layers": chosen if trainable.select == "none" else _chosen(trainable),
        "modules": list(trainable.modules) or "all matrices and norms",
        "extra": list(trainable.extra),
        "dtype": trainable.dtype,
    }


def _chosen(trainable: TrainableConfig) -> str:
    return f"the {trainable.select_top} that trainable.select={trainable.select} finds"


def _notes(config: RunConfig, device: Device) -> list[str]:
    """Returns what the stack would change by itself if these settings were not explicit."""
    grpo = config.grpo
    notes = [
        f"{config.rows_per_step} completions a step ({grpo.prompts_per_step} groups of {grpo.group_size}) "
        f"in {micro_batches_per_step(config)} micro-batches of {config.micro_batch}"
    ]
    if grpo.loss == "dapo" and grpo.epsilon_high is None:
        notes.append(f"epsilon_high is given as {grpo.epsilon}: if unset, Unsloth makes it 0.28 for dapo")
    if grpo.loss == "dapo" and not grpo.mask_truncated:
        notes.append("mask_truncated_completions is given as false: if unset, Unsloth turns it on for dapo")
    if config.micro_batch < grpo.group_size:
        notes.append("steps_per_generation is given: if unset, Unsloth may raise the batch to the group size")
    if config.model.bits == 4 and config.model.checkpoint == "dynamic" and device.is_gpu:
        notes.append("Unsloth replaces the model by its dynamic 4-bit upload (model.checkpoint)")
    notes += notices(config)
    if grpo.loss == "bnpo":
        notes.append("bnpo averages over each micro-batch: memory.micro_batch changes its gradient")
    if config.optimizer.schedule == "multistep":
        notes.append("the multi-step schedule is ours: transformers gets a constant one")
    return notes
