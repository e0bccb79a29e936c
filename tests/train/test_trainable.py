"""Real runs in which only some weights learn: nothing else moves, and the base model stays what it was."""

import json
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import load_policy
from lowmem_rl.entrypoints.train import run
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows

SMALL = ("eval.examples=16", "eval.every=0", "grpo.prompts_per_step=2", "grpo.steps=3", "memory.micro_batch=16")
WHOLE = ("trainable.method=full", "trainable.layers=first:1", "grpo.beta=0.04")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The first layer learns whole over the 4-bit base."""
    return trained(tmp_path_factory.mktemp("whole") / "run", *WHOLE)


def trained(out: Path, *settings: str) -> RunDir:
    run(resolve(preset="tiny-cpu", settings=[*SMALL, *settings]), out)
    return RunDir(out)


def saved_weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_whole_weights_start_at_no_distance_from_the_4_bit_base(whole: RunDir) -> None:
    rows = list(read_rows(whole.metrics))
    assert abs(rows[0]["kl"]) < 1e-7
    assert rows[-1]["kl"] > 1e-6


def test_only_the_first_layer_is_saved_and_all_of_it_has_moved(whole: RunDir) -> None:
    import torch

    policy = load_policy(
        resolve(preset="tiny-cpu", settings=[*SMALL, *WHOLE, "memory.checkpointing=none"]).config,
        Device("cpu", "float32"),
    )
    start = {n: w for n, w in policy.model.named_parameters() if w.requires_grad}
    found = saved_weights(whole.adapter)
    assert {name.split(".layers.")[1].split(".")[0] for name in found} == {"0"}
    assert len(found) == len(start) == 12
    for name, value in found.items():
        before = start[f"{name.rpartition('.')[0]}.modules_to_save.default.{name.rpartition('.')[2]}"]
        assert not torch.equal(value, before), name


def test_the_evaluation_of_a_whole_run_is_that_of_its_end(whole: RunDir, cli_here: Any) -> None:
    outcome = cli_here("eval", str(whole.path), "--examples=16", "--json")
    assert outcome.code == 0, outcome.stderr
    after = read_json(whole.evaluations)["after"]
    assert json.loads(outcome.stdout)["results"][0]["pass_at_1"] == after["pass_at_1"]


def test_adapters_in_the_last_layer_alone(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "trainable.layers=last:1", "memory.checkpointing=plain")
    assert {name.split(".layers.")[1].split(".")[0] for name in saved_weights(run.adapter)} == {"2"}
    assert all(row["grad_norm"] > 0 for row in read_rows(run.metrics))
