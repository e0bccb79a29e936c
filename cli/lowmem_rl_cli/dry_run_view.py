"""Shows what `train` would do: the config with its origins, and the exact arguments that the stack gets."""

from pathlib import Path

from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.entrypoints.dry_run import DryRun, dry_run
from lowmem_rl.signal.pass_rate import PassRate
from lowmem_rl_cli import console
from lowmem_rl_cli.profile_view import verdict_sentence


def print_dry_run(
    composed: ResolvedConfig, out: Path, pass_rate: PassRate | None = None, *, as_json: bool, force: bool = False
) -> None:
    """Prints a dry run as text, or as JSON for a program. Then raises the first fault of data, prompts or rewards."""
    plan = dry_run(composed, out, pass_rate, force=force)
    if as_json:
        console.show_json(plan.to_json())
    else:
        _show(plan, composed)
    if plan.faults:
        raise plan.faults[0]


def _show(plan: DryRun, composed: ResolvedConfig) -> None:
    device, is_tiny = plan.device, plan.config.adapter.peft_type == "tinylora"
    adds = "peft.TinyLoraConfig" if is_tiny else "unsloth.FastLanguageModel.get_peft_model"
    console.show(f"# Preset {plan.preset} for {plan.card}; computes on {device.kind} in {device.dtype}.")
    console.show(f"# {verdict_sentence(plan.plan)}")
    for refusal in plan.refusals:
        console.show(f"# `train` refuses this run: {refusal}\n#   hint: {refusal.hint}")
    console.show("")
    console.show(console.config_text(composed))
    for title, arguments in (
        ("unsloth.FastLanguageModel.from_pretrained gets", plan.from_pretrained),
        (f"{adds} gets", plan.get_peft_model),
        ("whole weights that learn, each next to its frozen original", plan.whole_weights),
        ("trl.GRPOConfig gets", plan.grpo_config | plan.unsloth_grpo_config),
    ):
        if not arguments:
            continue
        width = max(map(len, arguments))
        lines = (f"{name:<{width}}  {value!r}" for name, value in arguments.items())
        console.show("\n".join([f"\n# {title}", *lines]))
    console.show("")
    for note in plan.notes:
        console.show(f"# note: {note}")
    for adjustment in plan.adjustments:
        console.show(f"# changed on this {device.kind}: {adjustment}")
    if not plan.adjustments:
        console.show("# Nothing is changed: every setting stays as it is written.")
