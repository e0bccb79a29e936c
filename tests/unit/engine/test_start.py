"""What `train --from` takes, and what it refuses before anything is loaded; the adapters are files, not trained."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lowmem_rl.engine.start import find_start
from lowmem_rl.models.lookup import load_shape
from tests.run_maker import make_run

RANK = 8


def write_adapter(folder: Path, **settings: Any) -> Path:
    """Writes an adapter of the embedded model in all layers, as save_pretrained of PEFT does."""
    folder.mkdir(parents=True)
    shape, tensors = load_shape("tiny"), {}
    for layer in range(shape.num_layers):
        for name, (inputs, outputs) in shape.linear_sizes.items():
            block = "mlp" if name in ("gate_proj", "up_proj", "down_proj") else "self_attn"
            module = f"base_model.model.model.layers.{layer}.{block}.{name}"
            tensors[f"{module}.lora_A.weight"] = np.zeros((RANK, inputs), "float32")
            tensors[f"{module}.lora_B.weight"] = np.zeros((outputs, RANK), "float32")
    save_file(tensors, folder / "adapter_model.safetensors")
    written = {"peft_type": "LORA", "base_model_name_or_path": "tiny", "r": RANK, "lora_alpha": 16}
    targets = {"target_modules": sorted(shape.linear_sizes)}
    (folder / "adapter_config.json").write_text(json.dumps(written | targets | settings))
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """One that a warm-up has written."""
    folder = write_adapter(tmp_path / "warm")
    record = {"kind": "warmup", "preset": "tiny-cpu", "config": {"model": {"name": "tiny", "bits": 4}}}
    (folder / "warmup.json").write_text(json.dumps(record))
    return folder


@pytest.mark.slow
def test_the_adapter_decides_over_a_preset_and_its_own_preset_is_taken_if_none_is_named(adapter, cli_here) -> None:
    shown = json.loads(cli_here("train", f"--from={adapter}", "--dry-run", "--json").stdout)
    assert (shown["preset"], shown["config"]["start_from"]) == ("tiny-cpu", str(adapter))
    assert (shown["config"]["adapter"]["rank"], shown["config"]["adapter"]["alpha"]) == (RANK, 16)
    assert shown["origins"]["adapter.rank"] == "--from"
    plain = json.loads(cli_here("train", "--preset=tiny-cpu", "--set=adapter.rank=8", "--dry-run", "--json").stdout)
    assert plain["config"]["adapter"]["rank"] == RANK


def test_a_setting_that_agrees_with_the_adapter_may_be_named(adapter, cli_here) -> None:
    agreed = ("--set=adapter.rank=8", "--model=tiny", "--preset=tiny-cpu", "--set=model.bits=4")
    assert cli_here("train", f"--from={adapter}", *agreed, "--dry-run").code == 0


def test_the_copy_of_the_start_is_in_the_estimate(adapter, cli_here) -> None:
    started = json.loads(
        cli_here(
            "profile",
            "--preset=tiny-cpu",
            f"--set=start_from={adapter}",
            "--set=adapter.rank=8",
            "--set=adapter.alpha=16",
            "--json",
        ).stdout
    )
    terms = started["phases"]["backward"]
    assert terms["start, the KL reference"] == terms["adapter"] > 0


def test_adapters_of_a_run_carry_its_bits_and_any_of_them_is_a_start(tmp_path) -> None:
    run = make_run(tmp_path / "run", model__bits=16, model__name="tiny")
    for place in ("adapter", "best", "checkpoints/step-000004"):
        write_adapter(run / place)
    assert find_start(str(run)).layer.values["start_from"] == str(run / "adapter")
    for place in ("best", "checkpoints/step-000004"):
        values = find_start(str(run / place)).layer.values
        assert (values["start_from"], values["model.bits"]) == (str(run / place), 16)


def test_an_adapter_over_unsloths_4_bit_upload_is_trained_over_4_bits(tmp_path) -> None:
    base = "unsloth/qwen2.5-7b-instruct-unsloth-bnb-4bit"
    values = find_start(str(write_adapter(tmp_path / "sft", base_model_name_or_path=base))).layer.values
    assert (values["model.name"], values["model.bits"]) == (base, 4)


BAD: dict[str, tuple[int, str, Callable[[Path], Any], tuple[str, ...]]] = {
    "another rank": (2, "adapter.rank = 4", lambda path: None, ("--set=adapter.rank=4",)),
    "other targets": (2, "adapter.targets", lambda path: None, ('--set=adapter.targets=["q_proj"]',)),
    "another base": (2, "belongs to tiny", lambda path: None, ("--model=Qwen/Qwen2.5-0.5B-Instruct",)),
    "a preset of another base": (2, "belongs to tiny", lambda path: None, ("--preset=qwen7b-a6000",)),
    "quantised otherwise": (2, "model.bits = 16", lambda path: None, ("--set=model.bits=16",)),
    "layers to be selected": (2, "trainable.select", lambda path: None, ("--set=trainable.select=snr",)),
    "cut short": (7, "cut short", lambda path: _cut(path / "adapter_model.safetensors"), ()),
    "no weights": (7, "has no adapter_model", lambda path: (path / "adapter_model.safetensors").unlink(), ()),
    "matrices of another model": (7, "another model's", lambda path: _widen(path / "adapter_model.safetensors"), ()),
    "no folder of any kind": (7, "is no run, no adapter and no model", lambda path: _empty(path), ()),
    "a GGUF": (7, "is no run", lambda path: (_empty(path), (path / "m.gguf").touch()), ()),
}


@pytest.mark.parametrize("name", BAD)
def test_a_start_that_does_not_fit_is_refused_in_two_lines_before_anything_is_loaded(
    name, adapter, cli_here, tmp_path
) -> None:
    code, what, spoil, options = BAD[name]
    folder = tmp_path / "start"
    shutil.copytree(adapter, folder)
    spoil(folder)
    preset = () if any(one.startswith("--preset") for one in options) else ("--preset=tiny-cpu",)
    outcome = cli_here("train", *preset, f"--from={folder}", *options, "--dry-run")
    assert (outcome.code, what in outcome.stderr) == (code, True), outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 2
    assert ("GGUF" in outcome.stderr) == (name == "a GGUF")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _widen(path: Path) -> None:
    save_file({name: np.concatenate([one, one], -1) for name, one in load_file(path).items()}, path)


def _empty(path: Path) -> None:
    for file in path.iterdir():
        shutil.rmtree(file) if file.is_dir() else file.unlink()
