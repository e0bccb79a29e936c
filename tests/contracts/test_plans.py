"""The real GRPOConfig, which checks batches and groups itself, accepts every preset and its plans on several cards."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.presets import load_presets
from lowmem_rl.config.rules import broken_rules
from lowmem_rl.engine.device import device_of
from lowmem_rl.entrypoints.dry_run import dry_run
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.search import resolve_auto
from lowmem_rl.trl_adapter.grpo_args import grpo_arguments

PLANNED_FOR = ("t4", "3090", "a6000", "h200")
AUTO = ("memory.micro_batch=auto", "memory.rollout_rows=auto", "memory.checkpointing=auto")
PRESETS = [preset.name for preset in load_presets()]


def planned(preset: str, card_key: str):
    card = CARDS[card_key]
    config = resolve(preset=preset, settings=[*AUTO, "model.dtype=auto"]).config
    return resolve_auto(config, load_shape(config.model.name), card.offered_bytes, card)


@pytest.fixture(scope="module")
def plans() -> dict[str, object]:
    return {f"{preset} {key}": planned(preset, key) for preset in PRESETS for key in PLANNED_FOR}


@pytest.fixture(scope="module")
def built(plans, preloaded) -> dict[str, dict]:
    """Fields of the GRPOConfig of each preset and plan, all made by one process: Unsloth may be loaded in this one."""
    presets = {name: dry_run(resolve(preset=name), Path("out")).grpo_config for name in PRESETS}
    # A plan's card is not here: what is checked are batches and groups.
    on_cpu = {name: given | {"use_cpu": True} for name, given in presets.items()} | {
        name: grpo_arguments(config, device_of(CARDS[name.split()[1]], config), Path("out"))
        | {"use_cpu": True, "bf16": False, "fp16": False}
        for name, config in plans.items()
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.contracts.grpo_configs"],
        input=json.dumps(on_cpu),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (row,) = [line.removeprefix("ROW") for line in done.stdout.splitlines() if line.startswith("ROW")]
    return json.loads(row)


def test_a_plan_breaks_no_rule_and_keeps_the_group(plans):
    for name, config in plans.items():
        assert list(broken_rules(config)) == []
        assert config.grpo == resolve(preset=name.split()[0]).config.grpo


@pytest.mark.slow  # loads the stack
def test_the_real_grpo_config_takes_every_plan(plans, built):
    sizes = {name: built[name]["generation_batch_size"] for name in plans}
    assert sizes == {name: config.rows_per_rollout for name, config in plans.items()}


@pytest.mark.slow  # loads the stack
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_gives_trl_the_generation_batch_of_its_config(name: str, built: dict[str, dict]) -> None:
    config = resolve(preset=name).config
    assert built[name]["num_generations"] == config.grpo.group_size
    assert built[name]["generation_batch_size"] == config.rows_per_rollout
