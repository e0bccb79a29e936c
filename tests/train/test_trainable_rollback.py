"""Rolling back when whole weights learn, or layers that change: healthy weights return, and the set of that step."""

from pathlib import Path
from typing import Any

import pytest
from lowmem_rl_cli.app import main

from lowmem_rl.config.saved_config import saved_config
from lowmem_rl.storage.run_dir import RunDir, read_rows
from lowmem_rl.storage.run_reader import RunReader
from lowmem_rl.trainable.schedule import LayerSchedule
from tests.train.test_health_monitor import GLITCH, SMALL, TOO_HOT, weights_in

BACK = ("--set=health.action=roll_back", "--set=logging.checkpoint_every=1")
WHOLE = ("--set=trainable.method=full", "--set=trainable.layers=last:1")
LISA = (
    "--set=trainable.method=full",
    "--set=model.bits=16",
    "--set=trainable.schedule=lisa",
    "--set=trainable.every=1",
)


def test_whole_weights_that_were_never_healthy_end_as_the_originals(cli_here: Any, tmp_path: Path) -> None:
    done = cli_here("train", *SMALL, TOO_HOT, *BACK, *WHOLE, "--steps=9", f"--out={tmp_path / 'run'}")
    assert done.code == 5
    assert "the weights are the base model's again" in done.stderr
    found, base = weights_in(RunDir(tmp_path / "run").adapter), base_weights()
    assert found.keys() == base.keys()
    assert all((found[name] == base[name]).all() for name in found)


def base_weights() -> dict[str, Any]:
    """The last layer's weights before any step, by the names of a saved adapter."""
    from lowmem_rl.config.compose import resolve
    from lowmem_rl.engine.device import Device
    from lowmem_rl.engine.policy import load_policy

    settings = [option.removeprefix("--set=") for option in WHOLE]
    config = resolve(preset="tiny-cpu", settings=[*settings, "memory.checkpointing=none"]).config
    named = load_policy(config, Device("cpu", "float32")).model.named_parameters()
    part = ".modules_to_save.default"
    return {name.replace(part, ""): weight.detach().numpy() for name, weight in named if part in name}


@pytest.mark.parametrize("trainable", [WHOLE, LISA], ids=["whole", "lisa"])
def test_a_spoiled_run_goes_back_to_finite_weights_and_its_schedule_goes_on(
    trainable: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "rewards.py").write_text(GLITCH.format(first=90))
    reward, run = f"--reward={tmp_path / 'rewards.py'}:glitch=10.0", RunDir(tmp_path / "run")
    assert main(["train", *SMALL, *BACK, *trainable, reward, "--steps=5", "--force", f"--out={run.path}"]) == 0
    (undone,) = read_rows(run.rollbacks)
    assert undone["to"] == undone["step"] - 1
    rows = list(read_rows(run.metrics))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert all(abs(weight).max() < 10 for weight in weights_in(run.adapter).values())
    plan = LayerSchedule.of(saved_config(RunReader(run)), 3)
    assert [row["trainable_layers"] for row in rows] == [",".join(map(str, plan.at(row["step"]))) for row in rows]
