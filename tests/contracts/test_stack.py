"""The contract with the stack that is installed: what `lowmem_rl.stack` lists is there, and all that is used is listed.

`UNSLOTH_ALLOW_CPU` makes Unsloth write its GRPO trainer, which a GPU would use, on a CPU. It pretends that there is
CUDA, so this happens in a process of its own.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import lowmem_rl
from lowmem_rl.entrypoints.doctor import installed
from lowmem_rl.stack import MARKS, MEMBERS, SWITCHES, TRAINER_ATTRIBUTES, TRAINER_METHODS, TRIED, WORDINGS

OURS = Path(lowmem_rl.__file__).parent

REPORT = """
import functools, importlib, inspect, json, os, sys
os.environ["UNSLOTH_ALLOW_CPU"] = "1"
import unsloth
from unsloth.models.rl import _patch_trl_rl_trainers
import trl
methods, members = json.loads(sys.argv[1])
def parameters(cls):
    return {name: list(inspect.signature(getattr(cls, name)).parameters)[1:] for name in methods if hasattr(cls, name)}
def is_there(path):
    for cut in range(path.count("."), 0, -1):
        parts = path.split(".")
        try:
            functools.reduce(getattr, parts[cut:], importlib.import_module(".".join(parts[:cut])))
            return True
        except (ImportError, AttributeError):
            pass
    return False
def source(cls):
    return "".join(inspect.getsource(base) for base in cls.__mro__ if base is not object)
theirs = dir(trl.GRPOTrainer)
plain, plain_source = parameters(trl.GRPOTrainer), source(trl.GRPOTrainer)
_patch_trl_rl_trainers("grpo_trainer")
from lowmem_rl.config.run_config import MemoryConfig, RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.trl_adapter import trainer
from pathlib import Path
ours = trainer.trainer_class()
config = RunConfig(memory=MemoryConfig(checkpointing="unsloth"))
arguments = trainer.trainer_arguments(config, Device("cuda", "bfloat16"), Path("out"))
arguments |= {"bf16": False, "use_cpu": True}
load = inspect.signature(unsloth.FastLanguageModel.from_pretrained).parameters
print("REPORT" + json.dumps({
    "rewritten": trl.GRPOTrainer.__name__,
    "theirs": theirs,
    "bases": [base.__name__ for base in ours.__mro__],
    "parameters": {"plain": plain, "rewritten": parameters(trl.GRPOTrainer), "ours": parameters(ours)},
    "sources": {"plain": plain_source, "rewritten": source(trl.GRPOTrainer)},
    "mini_batch": trl.GRPOConfig(**arguments).unsloth_grpo_mini_batch,
    "lacking": [path for path in members if not is_there(path)],
    "loading": list(load),
}))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    run = subprocess.run(
        [sys.executable, "-c", REPORT, json.dumps([list(TRAINER_METHODS), list(MEMBERS)])],
        cwd=tmp_path_factory.mktemp("unsloth"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "REPORT" in run.stdout, run.stderr[-2000:]
    return json.loads(run.stdout.partition("REPORT")[2].splitlines()[0])


@pytest.mark.parametrize("name", TRIED)
def test_the_versions_that_were_tried_are_those_these_tests_see(name: str) -> None:
    assert (installed(name) or "").partition("+")[0] == TRIED[name].version


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_still_read(name: str) -> None:
    assert name in text_of(SWITCHES[name].file)


@pytest.mark.parametrize("wording", WORDINGS, ids=lambda wording: wording.text)
def test_the_stack_still_says_what_we_rest_on(wording: object) -> None:
    assert wording.text in text_of(wording.file), wording.why  # type: ignore[attr-defined]


def text_of(file: str) -> str:
    package, _, rest = file.partition("/")
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / rest).read_text(encoding="utf-8")


def test_the_trainer_inherits_from_what_unsloth_has_written(report: dict) -> None:
    assert report["rewritten"] == "UnslothGRPOTrainer"
    assert "UnslothGRPOTrainer" in report["bases"]


@pytest.mark.parametrize("kind", ["plain", "rewritten", "ours"])
@pytest.mark.parametrize("name", TRAINER_METHODS)
def test_a_method_of_the_trainer_takes_what_it_did(name: str, kind: str, report: dict) -> None:
    assert name in report["parameters"][kind]
    found, wanted = report["parameters"][kind][name], TRAINER_METHODS[name].parameters.split()
    # Some are wrapped, and hand on whatever the wrapper is given.
    assert found[: len(wanted)] == wanted or found[-2:] == ["args", "kwargs"], TRAINER_METHODS[name].why


@pytest.mark.parametrize("kind", ["plain", "rewritten"])
@pytest.mark.parametrize("name", TRAINER_ATTRIBUTES)
def test_an_attribute_of_the_trainer_is_still_set(name: str, kind: str, report: dict) -> None:
    assert re.search(rf"self\.{name}\b.* = ", report["sources"][kind]), TRAINER_ATTRIBUTES[name]


def test_members_that_are_used_by_name_are_there(report: dict) -> None:
    assert report["lacking"] == []


def test_unsloths_trainer_leaves_the_adapter_as_it_is(report: dict) -> None:
    assert "param.data = param.data.to(torch.bfloat16)" in report["sources"]["plain"]
    cast = re.search(
        r"if (.+):\n.+\n.+\n.+param\.data = param\.data\.to\(torch\.bfloat16\)", report["sources"]["rewritten"]
    )
    assert cast is None or cast[1] == "False"


def test_unsloths_config_takes_our_arguments(report: dict) -> None:
    assert report["mini_batch"] == 1  # TRL's own config has no such field


def test_unsloths_loader_takes_our_arguments(report: dict) -> None:
    from lowmem_rl.config.run_config import MemoryConfig, RunConfig
    from lowmem_rl.engine.device import Device
    from lowmem_rl.engine.policy import load_arguments

    config = RunConfig(memory=MemoryConfig(checkpointing="unsloth"))
    assert set(load_arguments(config, Device("cuda", "bfloat16"))) <= set(report["loading"])


@pytest.mark.parametrize("name", sorted(MARKS))
def test_unsloth_still_notes_its_shortcuts_under_the_names_that_we_read(name: str) -> None:
    files = ("unsloth/models/rl_replacements.py", "unsloth_zoo/rl_replacements.py")
    assert any(f"unwrapped_model.{name} =" in text_of(file) for file in files)


def test_every_mark_that_is_read_is_listed() -> None:
    from lowmem_rl.engine.unsloth_shortcuts import NAMES

    assert {f"_unsloth_{name}" for name in NAMES} == MARKS
    written = {name for path in OURS.rglob("*.py") for name in re.findall(r'"(_unsloth_\w+)"', path.read_text("utf-8"))}
    assert written <= MARKS


def test_every_switch_that_is_set_is_listed() -> None:
    used = {
        name for path in OURS.rglob("*.py") for name in re.findall(r'"(UNSLOTH_[A-Z]\w+)"', path.read_text("utf-8"))
    }
    assert used - {"UNSLOTH_FAIR"} <= set(SWITCHES)


def test_every_private_member_of_the_trainer_that_is_used_is_listed(report: dict) -> None:
    trees = [ast.parse(path.read_text("utf-8")) for path in OURS.rglob("*.py")]
    defined = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    used = {name for tree in trees for name in private_of_the_trainer(tree)} - (defined - set(report["theirs"]))
    assert len(used) > 5
    worded = {name for wording in WORDINGS for name in re.findall(r"\b_\w+", wording.text)}
    assert used <= {*TRAINER_METHODS, *TRAINER_ATTRIBUTES, *worded}


def private_of_the_trainer(tree: ast.AST) -> Iterator[str]:
    """Yields the private names that are asked of `trainer`, of the class above, and of `self` in a trainer's file."""
    is_trainers = any(isinstance(node, ast.Name) and node.id == "TrlTrainer" for node in ast.walk(tree))
    owners = {"trainer", "self"} if is_trainers else {"trainer"}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
            continue
        owner = node.value
        is_above = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"
        if is_above or (isinstance(owner, ast.Name) and owner.id in owners):
            yield node.attr
