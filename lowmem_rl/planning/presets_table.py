"""The presets side by side: what each needs by the estimate and took by measurement."""

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.presets import Measured, Preset, load_presets
from lowmem_rl.models.hardware import find_card
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.plan import Plan, plan
from lowmem_rl.units import GIB

HEAD = ("preset", "card", "model", "group", "prompt + completion tokens", "estimate, GiB", "s a step", "measured")


def presets_table() -> str:
    """Returns the table of `presets/README.md` in Markdown; a CPU's memory and speed are not told, for they vary."""
    rows = [HEAD, ("---",) * len(HEAD), *(_row(preset) for preset in load_presets())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _row(preset: Preset) -> tuple[str, ...]:
    lengths = f"{preset.max_prompt_tokens} + {preset.max_completion_tokens}"
    told = (preset.name, preset.card, preset.model, str(preset.group_size), lengths)
    return (*told, *_estimated(preset), _measured(preset.measured))


def _estimated(preset: Preset) -> tuple[str, str]:
    if preset.card == "cpu":
        return "-", "-"
    planned = _plan(preset)
    memory = planned.estimate
    budget = planned.target.budget_bytes / GIB
    needed = f"{memory.expected_bytes / GIB:.1f}, up to {memory.upper_bytes / GIB:.1f} of {budget:.1f}"
    seconds = planned.time.step if planned.time else None
    return needed, f"{seconds.low:.0f}-{seconds.high:.0f}" if seconds else "-"


def _plan(preset: Preset) -> Plan:
    config = resolve(preset=preset.name).config
    return plan(config, load_shape(config.model.name), find_card(preset.card))


def _measured(measured: Measured | None) -> str:
    if measured is None:
        return "not measured"
    return f"{measured.peak_gib:.1f} GiB, {measured.step_seconds:.0f} s a step ({measured.date}, {measured.commit})"
