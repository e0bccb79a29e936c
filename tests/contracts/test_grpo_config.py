"""Every preset's arguments are accepted by the real GRPOConfig, which checks batches and groups itself."""

import json
import subprocess
import sys

import pytest

from lowmem_rl.config.presets import load_presets

pytestmark = pytest.mark.slow  # half a minute, most of it to load the stack

BUILD = """
import json, sys
from trl import GRPOConfig
for name, arguments in json.load(sys.stdin).items():
    config = GRPOConfig(**arguments)
    row = {key: getattr(config, key) for key in ("generation_batch_size", "num_generations", "steps_per_generation")}
    print("ROW" + json.dumps({"name": name, **row}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    from pathlib import Path

    from lowmem_rl.config.compose import resolve
    from lowmem_rl.entrypoints.dry_run import dry_run

    plans = {preset.name: dry_run(resolve(preset=preset.name), Path("out")) for preset in load_presets()}
    arguments = {name: plan.grpo_config | {"use_cpu": True} for name, plan in plans.items()}
    run = subprocess.run(
        [sys.executable, "-c", BUILD],
        input=json.dumps(arguments),
        cwd=tmp_path_factory.mktemp("grpo"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    rows = [json.loads(line[3:]) for line in run.stdout.splitlines() if line.startswith("ROW")]
    return {row["name"]: row for row in rows}


@pytest.mark.parametrize("name", [preset.name for preset in load_presets()])
def test_a_preset_gives_trl_the_generation_batch_of_its_config(name: str, built: dict[str, dict]) -> None:
    from lowmem_rl.config.compose import resolve

    config = resolve(preset=name).config
    assert built[name]["num_generations"] == config.grpo.group_size
    assert built[name]["generation_batch_size"] == config.rows_per_rollout
