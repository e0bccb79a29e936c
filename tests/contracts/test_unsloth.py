"""The contract with Unsloth's rewritten GRPO trainer, which a GPU would use, checked without a GPU.

`UNSLOTH_ALLOW_CPU` makes Unsloth write that trainer on a CPU. It pretends that there is CUDA,
so this happens in a process of its own.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

REPORT = """
import inspect, json, os, sys
os.environ["UNSLOTH_ALLOW_CPU"] = "1"
import unsloth
from unsloth.models.rl import _patch_trl_rl_trainers
import trl
methods = json.loads(sys.argv[1])
def parameters(cls):
    return {name: list(inspect.signature(getattr(cls, name)).parameters) for name in methods}
plain = parameters(trl.GRPOTrainer)
_patch_trl_rl_trainers("grpo_trainer")
from lowmem_rl.config import MemoryConfig, RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.training import border, trainer, trl_args
from pathlib import Path
ours = trainer.trainer_class()
config = RunConfig(memory=MemoryConfig(checkpointing="unsloth"))
arguments = trainer.trainer_arguments(config, Device("cuda", "bfloat16"), Path("out"))
arguments |= {"bf16": False, "use_cpu": True}
print("REPORT" + json.dumps({
    "rewritten": trl.GRPOTrainer.__name__,
    "bases": [base.__name__ for base in ours.__mro__],
    "plain": plain,
    "patched": parameters(trl.GRPOTrainer),
    "ours": parameters(ours),
    "mini_batch": trl.GRPOConfig(**arguments).unsloth_grpo_mini_batch,
    "lacking": [name for name in border.OVERRIDDEN if not hasattr(trl.GRPOTrainer, name)],
    "log_probs": inspect.getsource(trl.GRPOTrainer._get_per_token_logps_and_entropies),
}))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    from lowmem_rl.training.trainer import OVERRIDDEN

    run = subprocess.run(
        [sys.executable, "-c", REPORT, json.dumps(OVERRIDDEN)],
        cwd=tmp_path_factory.mktemp("unsloth"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "REPORT" in run.stdout, run.stderr[-2000:]
    return json.loads(run.stdout.partition("REPORT")[2].splitlines()[0])


def test_the_trainer_inherits_from_what_unsloth_has_written(report: dict) -> None:
    assert report["rewritten"] == "UnslothGRPOTrainer"
    assert "UnslothGRPOTrainer" in report["bases"]


def test_every_overridden_method_keeps_its_parameters(report: dict) -> None:
    assert report["ours"] == report["plain"]
    for name, parameters in report["patched"].items():
        # Unsloth wraps some of them, and hands on whatever the wrapper is given.
        assert parameters == report["plain"][name] or parameters[-2:] == ["args", "kwargs"]


def test_what_a_run_goes_on_through_is_there(report: dict) -> None:
    assert report["lacking"] == []


def test_unsloths_config_takes_our_arguments(report: dict) -> None:
    assert report["mini_batch"] == 1  # TRL's own config has no such field


def test_the_mini_batch_is_a_count_of_passes_not_of_rows(report: dict) -> None:
    assert "B = self.args.unsloth_grpo_mini_batch" in report["log_probs"]
    assert "math.ceil(total_samples / B)" in report["log_probs"]


def test_unsloth_notes_its_shortcuts_under_the_names_that_we_read() -> None:
    from lowmem_rl.training.shortcuts import NAMES

    folders = [
        Path(place) for name in ("unsloth", "unsloth_zoo") for place in find_spec(name).submodule_search_locations
    ]  # type: ignore[union-attr]
    written = "".join(file.read_text() for folder in folders for file in folder.rglob("rl_replacements.py"))
    assert [name for name in NAMES if f"unwrapped_model._unsloth_{name} =" not in written] == []
