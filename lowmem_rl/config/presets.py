"""Presets: a model, a card and the numbers that suit both, one TOML file each.

The `[preset]` table of a file describes its purpose; its other tables are sparse `RunConfig` tables. Values stay raw
here; `compose` merges and validates them.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from lowmem_rl.errors import UnknownName
from lowmem_rl.models.hardware import CARDS

_LADDER = ("qwen1.5b-8gb", "qwen3b-12gb", "qwen1.5b-t4", "qwen7b-24gb", "qwen7b-a6000")
"""Default presets of machines with a GPU, those for the smallest cards first."""
_UNKNOWN_CARD, _SMALLER_CARD = "qwen1.5b-t4", "qwen0.5b-8gb"


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of a run of the preset on its card."""

    peak_gib: float
    step_seconds: float
    date: str
    commit: str


@dataclass(frozen=True, slots=True)
class Preset:
    """One file of `presets/`: its purpose and its settings."""

    name: str
    summary: str
    card: str
    """A key of `hardware.CARDS`, or "cpu"."""
    base: Literal["base", "instruct", "sft"]
    """Kind of model it starts from: pretrained, tuned for chat, or fine-tuned on supervised examples only."""
    checkpoint: str
    """Which weights are loaded, for readers."""
    measured: Measured | None
    values: Mapping[str, Any]
    text: str
    paper: str = ""
    """The publication whose settings these are, if any: then its group size counts, whatever is usual here."""

    @property
    def model(self) -> str:
        return str(self.values["model"]["name"])

    @property
    def group_size(self) -> int:
        return int(self.values["grpo"]["group_size"])

    @property
    def max_prompt_tokens(self) -> int:
        return int(self.values["grpo"]["max_prompt_tokens"])

    @property
    def max_completion_tokens(self) -> int:
        return int(self.values["grpo"]["max_completion_tokens"])


@cache
def load_presets() -> tuple[Preset, ...]:
    """Returns all presets, those for the smallest card first and the embedded model's before all others."""
    found = map(load_preset, _preset_files())
    return tuple(
        sorted(found, key=lambda preset: (_offered_bytes(preset.card), preset.name != "tiny-cpu", preset.name))
    )


@cache
def load_preset(name: str) -> Preset:
    """Returns the preset of that name; the other files are not read. Raises `UnknownName` if there is none."""
    presets = _preset_files()
    if name not in presets:
        raise UnknownName("preset", name, [preset.name for preset in load_presets()])
    text = presets[name].read_text(encoding="utf-8")
    values = tomllib.loads(text)
    about = values.pop("preset")
    measured = Measured(**about.pop("measured")) if "measured" in about else None
    return Preset(name=name, measured=measured, values=values, text=text, **about)


def default_preset(card: str | None) -> str:
    """Returns the preset for a card's key: `tiny-cpu` for None, else the most demanding one for no larger card."""
    if card is None:
        return "tiny-cpu"
    if card not in CARDS:
        return _UNKNOWN_CARD
    # Cards of one nominal size differ by up to a tenth in usable memory.
    offered = 1.1 * _offered_bytes(card)
    fitting = (name for name in reversed(_LADDER) if _offered_bytes(load_preset(name).card) <= offered)
    return next(fitting, _SMALLER_CARD)


def _offered_bytes(card: str) -> int:
    """Returns a card's usable memory, 0 for the CPU and for unknown cards."""
    return CARDS[card].offered_bytes if card in CARDS else 0


@cache
def _preset_files() -> dict[str, Traversable]:
    packaged = files("lowmem_rl") / "_presets"  # in a wheel; a checkout has them next to the package
    folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "presets"
    return {file.name.removesuffix(".toml"): file for file in folder.iterdir() if file.name.endswith(".toml")}
