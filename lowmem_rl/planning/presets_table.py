"""The presets in one table: what each needs by the estimate and took by measurement."""

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.presets import Preset, load_preset, load_presets
from lowmem_rl.models.hardware import find_card
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.plan import plan
from lowmem_rl.units import GIB

HEAD = ("preset", "card", "model", "group", "prompt + completion tokens", "estimate, GiB", "s a step", "measured")


def presets_table() -> str:
    """Returns the table of `presets/README.md` in Markdown; a CPU's memory and speed vary and are left out."""
    rows = [HEAD, ("---",) * len(HEAD), *map(_row, load_presets())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def peak_of(name: str) -> str:
    """Returns a preset's estimate as the table has it: GiB expected, at most, and the card's."""
    return _estimated(load_preset(name))[0]


def _row(preset: Preset) -> tuple[str, ...]:
    lengths, found = f"{preset.max_prompt_tokens} + {preset.max_completion_tokens}", preset.measured
    measured = "not measured"
    if found:
        measured = f"{found.peak_gib:.1f} GiB, {found.step_seconds:.0f} s a step ({found.date}, {found.commit})"
    return (
        *(preset.name, preset.card, preset.model, str(preset.group_size), lengths),
        *(("-", "-") if preset.card == "cpu" else _estimated(preset)),
        measured,
    )


def _estimated(preset: Preset) -> tuple[str, str]:
    config = resolve(preset=preset.name).config
    planned = plan(config, load_shape(config.model.name), find_card(preset.card))
    memory, budget = planned.estimate, planned.target.budget_bytes / GIB
    needed = f"{memory.expected_bytes / GIB:.1f}, up to {memory.upper_bytes / GIB:.1f} of {budget:.1f}"
    return needed, f"{planned.time.step.low:.0f}-{planned.time.step.high:.0f}" if planned.time else "-"
