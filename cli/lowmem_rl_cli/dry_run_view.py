"""Shows what `train` would do: the config with its origins, and the exact arguments that the stack gets."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.entrypoints.dry_run import DryRun, dry_run
from lowmem_rl.signal.pass_rate import PassRate
from lowmem_rl_cli import console
from lowmem_rl_cli.profile_view import verdict_sentence


def print_dry_run(composed: ResolvedConfig, out: Path, pass_rate: PassRate | None = None, *, as_json: bool) -> None:
    """Prints a dry run for a person, or as JSON for a program."""
    plan = dry_run(composed, out, pass_rate)
    if as_json:
        console.show_json(plan.to_json())
        return
    console.show(f"# Preset {plan.preset} for {plan.card}; computes on {plan.device.kind} in {plan.device.dtype}.")
    for line in _verdict(plan):
        console.show(line)
    console.show("")
    console.show(console.config_text(composed))
    for title, arguments in _calls(plan):
        console.show(f"\n# {title}")
        console.show(_arguments(arguments))
    console.show("")
    for line in _remarks(plan):
        console.show(line)


def _verdict(plan: DryRun) -> Iterator[str]:
    yield f"# {verdict_sentence(plan.plan)}"
    for refusal in plan.refusals:
        yield f"# `train` refuses this run: {refusal}"
        yield f"#   hint: {refusal.hint}"


def _calls(plan: DryRun) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "unsloth.FastLanguageModel.from_pretrained gets", plan.from_pretrained
    yield "unsloth.FastLanguageModel.get_peft_model gets", plan.get_peft_model
    yield "trl.GRPOConfig gets", plan.grpo_config | plan.unsloth_grpo_config


def _arguments(arguments: Mapping[str, Any]) -> str:
    width = max(map(len, arguments))
    return "\n".join(f"{name:<{width}}  {value!r}" for name, value in arguments.items())


def _remarks(plan: DryRun) -> Iterator[str]:
    yield from (f"# note: {note}" for note in plan.notes)
    yield from (f"# changed on this {plan.device.kind}: {adjustment}" for adjustment in plan.adjustments)
    if not plan.adjustments:
        yield "# Nothing is changed: every setting stands as it is written."
