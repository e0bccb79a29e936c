"""What is proved: this machine's card, and a preset whose step is measured on it."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lowmem_rl.config.presets import load_preset
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.models.hardware import Card, Machine
from lowmem_rl.models.lookup import is_at_hand, load_shape
from lowmem_rl.planning.plan import Plan, plan
from lowmem_rl.units import GIB
from lowmem_rl_bench.prove.measured_preset import (
    Weights,
    compose,
    planned_facts,
    planned_settings,
    settings_of,
    shape_of,
)
from lowmem_rl_bench.prove.processes import Site
from lowmem_rl_bench.prove.record import digest_of
from lowmem_rl_bench.prove.settings import Settings


@dataclass(frozen=True)
class Subject:
    """A machine with a card, a preset, and the weights with which its step is measured."""

    machine: Machine
    preset: str
    weights: Weights
    quick: bool = False

    @property
    def card(self) -> Card:
        """The card. A machine without one is no subject."""
        assert self.machine.card is not None
        return self.machine.card

    @cached_property
    def plan(self) -> Plan:
        """The plan for what is free on the card, without what this machine has measured before."""
        name = load_preset(self.preset).model
        shape = load_shape(name) if self.weights == "cached" else shape_of(self.preset, self.weights)
        config = compose(self.preset, self.weights).config
        return plan(config, shape, self.card, self.machine.free_bytes)

    @cached_property
    def config(self) -> RunConfig:
        """The run that is measured, with nothing left to the planner."""
        return compose(self.preset, self.weights, planned_settings(planned_facts(self.plan.config))).config

    @property
    def model_words(self) -> str:
        """Which model is measured, for a person."""
        name = load_preset(self.preset).model
        return {"cached": name, "random": f"random weights in the shape of {name}"}.get(
            self.weights, f"the embedded model with short rows in place of {name}"
        )

    def why_not(self, folder: Path) -> str:
        """Returns why the preset's step cannot be measured, "" if it can."""
        if self.plan.memory_verdict == "does-not-fit":
            needed, free = self.plan.estimate.expected_bytes / GIB, self.machine.free_bytes / GIB
            return f"{self.preset} needs {needed:.1f} GiB, {free:.1f} are free"
        needed_bytes, free_bytes = self._disk_bytes(folder), shutil.disk_usage(folder).free
        if needed_bytes > free_bytes:
            room = (
                f"{needed_bytes / GIB:.1f} GiB of disk, {free_bytes / GIB:.1f} are free (TMPDIR names another folder)"
            )
            return f"the random weights take {room}"
        return ""

    def _disk_bytes(self, folder: Path) -> int:
        """Size of random weights that do not exist yet, in bfloat16, plus a tenth."""
        if self.weights != "random" or _folder_of(folder).exists():
            return 0
        return int(1.1 * 2 * shape_of(self.preset, self.weights).num_params)

    def settings(self, site: Site) -> Settings:
        """Returns the settings of the measured run over the preset's; makes the random weights that they name."""
        settings = settings_of(self.preset, self.weights) | planned_settings(planned_facts(self.plan.config))
        if self.weights == "random":
            settings["model.name"] = _random_model(site, load_preset(self.preset).model)
        return settings

    def card_facts(self, cuda: str | None) -> dict[str, Any]:
        """Returns the card's part of a record; `cuda` is CUDA's version in torch."""
        card = self.card
        return {
            "key": card.key,
            "compute_capability": card.compute_capability,
            "offered_bytes": card.offered_bytes,
            "cuda": cuda,
        }

    def facts(self) -> dict[str, Any]:
        """Returns the part of the record that says what was measured, without measurements."""
        config = self.config.model_dump(mode="json")
        return {
            "preset": self.preset,
            "model": self.config.model.name,
            "weights": self.weights,
            "planned": planned_facts(self.plan.config),
            "config": config,
            "config_sha256": digest_of(config),
            "memory": None,
            "step": None,
        }


def weights_of(preset: str, *, quick: bool, random: bool) -> Weights:
    """Returns which weights are measured: the preset's own if they are on this disk, and if not, those that may be."""
    config = compose(preset, "cached").config.model
    if quick:
        return "embedded"
    if is_at_hand(config.name, config.revision) and config.checkpoint == "plain":
        return "cached"
    return "random" if random else "embedded"


def _folder_of(folder: Path) -> Path:
    return folder / "random-model"


def _random_model(site: Site, name: str) -> Path:
    folder = _folder_of(site.folder)
    if not (folder / "model.safetensors.index.json").exists():
        site.child("lowmem_rl_bench.prove.random_model", {"model": name, "folder": str(folder)})
    return folder
