"""The contract with the installed stack: all that `lowmem_rl.stack` lists exists, and all that we use is listed."""

import ast
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import lowmem_rl
from lowmem_rl.entrypoints.doctor import installed
from lowmem_rl.memory.activations import chunk_rows
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.stack import MARKS, MEMBERS, SWITCHES, TESTED, WORDINGS
from lowmem_rl.trl_adapter.private import TORCH_PRIVATE, TRL_PRIVATE

pytestmark = pytest.mark.slow  # seconds, most of them to load Unsloth

OURS = Path(lowmem_rl.__file__).parent

CHUNKED = ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-7B", "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-3.1-8B", "tiny")
CHUNKS = [(rows, load_shape(name)) for name in CHUNKED for rows in (1, 100, 600, 4095)]


@pytest.fixture(scope="module")
def report(preloaded: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return reported(preloaded, tmp_path_factory.mktemp("unsloth"))


def reported(python: Path, folder: Path) -> dict:
    asked = [(rows, shape.hidden_size, shape.vocab_size) for rows, shape in CHUNKS]
    run = subprocess.run(
        [python, "-m", "tests.contracts.rewritten_trainer", json.dumps(list(MEMBERS)), json.dumps(asked)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "REPORT" in run.stdout, run.stderr[-2000:]
    return json.loads(run.stdout.partition("REPORT")[2].splitlines()[0])


@pytest.mark.long
def test_the_report_is_that_of_a_process_that_loads_unsloth_first(report: dict, tmp_path: Path) -> None:
    assert reported(Path(sys.prefix, "bin", "python"), tmp_path) == report


@pytest.mark.parametrize("name", TESTED)
def test_the_tested_versions_are_installed(name: str) -> None:
    assert (installed(name) or "").partition("+")[0] == TESTED[name]


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_still_read(name: str) -> None:
    assert name in text_of(SWITCHES[name].file)


@pytest.mark.parametrize("wording", WORDINGS, ids=lambda wording: wording.text)
def test_a_wording_that_we_rely_on_is_still_there(wording: object) -> None:
    assert wording.text in text_of(wording.file), wording.why  # type: ignore[attr-defined]


def text_of(file: str) -> str:
    package, _, rest = file.partition("/")
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / rest).read_text(encoding="utf-8")


def test_the_trainer_inherits_from_unsloths_rewritten_one(report: dict) -> None:
    assert report["rewritten"] == "UnslothGRPOTrainer"
    assert "UnslothGRPOTrainer" in report["bases"]


@pytest.mark.parametrize("kind", ["plain", "rewritten"])
def test_what_is_overridden_takes_what_theirs_takes(kind: str, report: dict) -> None:
    theirs, ours = report["parameters"][kind], report["parameters"]["ours"]
    assert len(report["overrides"]) > 10
    for name in report["overrides"]:
        wanted = [parameter for parameter in ours[name] if parameter not in ("args", "kwargs")] or theirs[name][:1]
        # A wrapped method passes on all arguments of the wrapper; transformers uses the name `args`, too.
        is_wrapped = theirs[name][-2:] == ["args", "kwargs"]
        assert is_wrapped or [p for p in theirs[name] if p != "args"][: len(wanted)] == wanted, name


@pytest.mark.parametrize("kind", ["plain", "rewritten"])
@pytest.mark.parametrize("name", TRL_PRIVATE)
def test_a_private_member_of_the_trainer_is_still_there(name: str, kind: str, report: dict) -> None:
    is_set = re.search(rf"self\.{name}\b.* = ", report["sources"][kind])
    assert name in report["parameters"][kind] or is_set, TRL_PRIVATE[name]


@pytest.mark.parametrize("kind", ["plain", "rewritten"])
@pytest.mark.parametrize("name", ["current_gradient_accumulation_steps", "num_iterations"])
def test_an_attribute_of_the_trainer_is_still_set(name: str, kind: str, report: dict) -> None:
    assert re.search(rf"self\.{name}\b.* = ", report["sources"][kind])


@pytest.mark.parametrize("kind", ["plain", "rewritten"])
@pytest.mark.parametrize("name", ["_save_optimizer_and_scheduler", "_save_scaler"])
def test_what_is_called_for_a_checkpoint_takes_a_folder(name: str, kind: str, report: dict) -> None:
    assert report["parameters"][kind][name][:1] == ["output_dir"]


def test_members_that_are_used_by_name_exist(report: dict) -> None:
    assert report["lacking"] == []


def test_unsloths_trainer_does_not_cast_the_adapter(report: dict) -> None:
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


def test_rows_of_a_chunk_of_logits_are_those_of_the_estimate_and_unsloths_setting_for_them_is_unused(report) -> None:
    assert report["chunk_rows"] == [chunk_rows(rows, shape) for rows, shape in CHUNKS]
    assert report["scored"] == [1, 8]  # if Unsloth read the setting, None would raise


@pytest.mark.parametrize("name", sorted(MARKS))
def test_unsloth_still_sets_its_shortcuts_under_the_names_that_we_read(name: str) -> None:
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


def test_private_members_of_others_are_listed_and_named_in_one_room(report: dict) -> None:
    private = {*TRL_PRIVATE, *TORCH_PRIVATE}
    theirs: set[str] = set()
    for path in OURS.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        used = private_of(tree)
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        if path.parent.name == "trl_adapter":
            theirs |= (used | {name for name in own if name[:1] == "_" != name[1:2]}) - (own - set(report["theirs"]))
        else:
            assert not (used - own) & private, path
    assert theirs == private


def private_of(tree: ast.AST) -> set[str]:
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}
