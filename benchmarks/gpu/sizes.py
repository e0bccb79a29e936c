"""The models that are measured on a card, and their settings: those of the presets made for its size."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lowmem_rl.config.compose import resolve
from lowmem_rl.models.hardware import Machine, find_card
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.overrides import planned
from lowmem_rl.planning.plan import Plan, plan
from lowmem_rl.units import GIB
from lowmem_rl_bench.prove.settings import MADE_UP, SHORT, Settings, as_texts

BY_CARD = ((44, "a6000"), (20, "24gb"), (0, "t4"))
"""Presets by the minimum GiB of a card."""


@dataclass(frozen=True)
class Size:
    """A model that is measured on this machine's card."""

    name: str
    model: str
    """In the catalogue."""
    preset: str
    short: Settings
    machine: Machine

    @cached_property
    def plan(self) -> Plan:
        """The plan for the preset's card, or for this one if it is smaller."""
        composed = resolve(preset=self.preset, settings=as_texts(self.short | {"model.name": self.model}))
        card, budget = find_card(composed.card), find_card(composed.card).offered_bytes
        if self.machine.free_bytes < budget:
            assert self.machine.card is not None
            card, budget = self.machine.card, self.machine.free_bytes
        return plan(composed.config, load_shape(self.model), card, budget)

    @property
    def disk_bytes(self) -> int:
        """Size of the random weights in bfloat16, plus a tenth."""
        return int(1.1 * 2 * load_shape(self.model).num_params)

    def settings(self, folder: Path) -> Settings:
        """Returns the settings of a run: those of the preset's plan, so that this card's planner decides nothing.

        The model comes from `folder`, its task is made up. Our engine samples: with `generate` the memory would not be
        what the estimate predicts.
        """
        local = {"model.name": folder / self.name, "rollout.engine": "lowmem", **MADE_UP}
        return self.short | local | planned(self.plan.config)

    def too_large(self) -> str:
        """Returns why it does not fit on this card, "" if it does."""
        if self.plan.memory_verdict != "does-not-fit":
            return ""
        needed = self.plan.estimate.expected_bytes / GIB
        return f"{self.preset} needs {needed:.1f} GiB, {self.machine.free_bytes / GIB:.1f} are free"

    def left_out(self, folder: Path) -> str:
        """Returns why it does not fit on this card or, by now, on this disk; "" if it does."""
        if reason := self.too_large():
            return reason
        free = shutil.disk_usage(folder).free
        if not (folder / self.name).exists() and free < self.disk_bytes:
            return f"its weights take {self.disk_bytes / GIB:.1f} GiB of disk, {free / GIB:.1f} are free"
        return ""


def sizes_for(machine: Machine, *, quick: bool) -> list[Size]:
    """Returns the sizes that are measured on a card, the smallest first."""
    card = next(name for least, name in BY_CARD if machine.total_bytes >= least * GIB)
    if quick:
        return [Size("embedded", "tiny", f"qwen1.5b-{card}", SHORT, machine)]
    return [
        Size("1.5b", "Qwen/Qwen2.5-1.5B-Instruct", f"qwen1.5b-{card}", {}, machine),
        Size("7b", "Qwen/Qwen2.5-7B-Instruct", f"qwen7b-{card}", {}, machine),
    ]
