"""Commands that need no model load none of its packages, by `sys.modules` of a new process."""

import subprocess
import sys

import pytest

from tests.run_maker import make_run

HEAVY = {"accelerate", "bitsandbytes", "datasets", "peft", "torch", "transformers", "trl", "unsloth", "wandb"}

LIGHT_COMMANDS = [
    "--help",
    "doctor --help",
    "presets list",
    "profile --preset qwen7b-a6000",
    "profile --card 4090 --json",
    "train --dry-run --preset tiny-cpu",
]

LIST_MODULES = """
import sys
from lowmem_rl_cli.app import main
code = main(sys.argv[1:])
print("\\nmodules:", *sys.modules)
sys.exit(code)
"""


def modules_after(program: str, *args: str) -> set[str]:
    """Runs a program that prints its modules last. The time limit is loose, since test machines can stall."""
    done = subprocess.run(
        [sys.executable, "-c", program, *args], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("command", LIGHT_COMMANDS)
def test_a_light_command_loads_nothing_heavy(command):
    modules = modules_after(LIST_MODULES, *command.split())
    assert "lowmem_rl_cli.app" in modules
    assert not HEAVY & modules


@pytest.mark.parametrize("command", ["report {run}", "compare {run} {run}", "samples {run}"])
def test_reading_a_run_loads_nothing_heavy(tmp_path, command):
    run = make_run(tmp_path / "run")
    assert not HEAVY & modules_after(LIST_MODULES, *command.format(run=run).split())


def test_profile_loads_nothing_that_is_slow_and_not_needed():
    """It has half a second, and each of these libraries takes a tenth of that or more."""
    modules = modules_after(LIST_MODULES, "profile", "--preset", "qwen7b-a6000")
    assert not {"pynvml", "rich", "urllib.request", "lowmem_rl.stack", "lowmem_rl.storage.run_dir"} & modules


def test_importing_the_library_loads_nothing_but_itself():
    modules = modules_after("import sys, lowmem_rl; print(*sys.modules)")
    assert {name for name in modules if name.startswith("lowmem_rl")} == {"lowmem_rl", "lowmem_rl._version"}
    assert not (HEAVY | {"pydantic", "typer", "rich"}) & modules
