"""What the doctor reports about a machine."""

import shlex
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from lowmem_rl.entrypoints.doctor import (
    check_card,
    check_conflicts,
    check_disk,
    check_gpu_count,
    check_machine,
    check_network,
    check_package,
    check_python,
    fix_commands,
    is_ready,
    required_ranges,
)
from lowmem_rl.models.hardware import Machine, find_card
from lowmem_rl.stack import TESTED
from lowmem_rl.units import GIB

LAPTOP = Machine(None, "cpu", 0, 0, "", 0, 8 * GIB, 4)
WORKSTATION = Machine(find_card("a6000"), "NVIDIA RTX A6000", 47 * GIB, 46 * GIB, "580.95", 1, 64 * GIB, 16)


@pytest.mark.parametrize(("found", "status"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "fail")])
def test_python_is_held_to_the_supported_versions(found: tuple[int, int], status: str) -> None:
    assert check_python(found).status == status


def test_a_machine_without_gpu_is_referred_to_the_tiny_model() -> None:
    check = check_card(LAPTOP)
    assert check.status == "warn"
    assert "tiny-cpu" in check.message


def test_a_card_is_free_shared_or_too_old() -> None:
    old = replace(find_card("t4"), compute_capability=(6, 1))
    assert check_card(WORKSTATION).status == "ok"
    assert check_card(replace(WORKSTATION, free_bytes=30 * GIB)).status == "warn"
    assert check_card(replace(WORKSTATION, card=old)).status == "fail"
    assert "first" in check_gpu_count(replace(WORKSTATION, num_gpus=2)).message


@pytest.mark.parametrize(
    ("name", "found", "status"),
    [
        ("torch", "2.14.1", "ok"),
        ("torch", "2.14.1+cu130", "ok"),
        ("torch", "2.10.0", "warn"),
        ("torch", "2.15.0", "fail"),
        ("torch", "2.14.0a0+git1", "warn"),
        ("torch", "2.8.1", "fail"),
        ("trl", "1.15.0", "ok"),
        ("trl", "1.16.0", "fail"),
        ("unsloth_zoo", "2026.10.8", "fail"),
        ("unsloth", "2026.11.1", "warn"),
        ("peft", None, "fail"),
    ],
)
def test_a_package_is_ok_untested_or_unfit(name: str, found: str | None, status: str) -> None:
    check = check_package(name, found, required_ranges()[name], WORKSTATION)
    assert check.status == status
    assert (check.status == "ok") == (check.fix == "")


def test_an_unsloth_without_cpu_backend_is_named_with_its_override() -> None:
    check = check_package("unsloth", "2026.10.7", required_ranges()["unsloth"], LAPTOP)
    assert check.status == "fail"
    assert "CPU backend" in check.message
    assert "--override" in check.fix


def test_the_disk_of_a_cache_that_does_not_exist_yet_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "not" / "there" / "yet"))
    cache, runs = check_disk()
    assert "GiB free" in cache.found
    assert runs.found.endswith(str(Path.cwd()))


def test_offline_mode_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = import_module("huggingface_hub.constants")  # reads its variables when it is imported
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    assert check_network().found == "offline (TRANSFORMERS_OFFLINE)"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert "offline" not in check_network().found


def test_all_checks_but_xformers_take_less_than_three_seconds() -> None:
    began = time.monotonic()
    checks = check_machine(probe_xformers=False)
    assert time.monotonic() - began < 3
    assert {"python", "card", "torch", "unsloth", "hub"} <= {check.name for check in checks}
    assert is_ready(checks) == all(check.status != "fail" for check in checks)


def test_a_requirement_that_stops_an_import_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(check_conflicts("huggingface_hub")) == []
    metadata = tmp_path / "stackful-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    needs = ["packaging<1", "typer>=0.1", "surely-not-there>=2", "packaging<1; extra == 'dev'"]
    lines = ["Metadata-Version: 2.1", "Name: stackful", "Version: 1.0", *(f"Requires-Dist: {need}" for need in needs)]
    metadata.write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = list(check_conflicts("stackful"))
    assert [(check.name, check.status) for check in found] == [("packaging", "fail"), ("surely-not-there", "fail")]
    assert "'packaging<1'" in found[0].fix
    assert list(check_conflicts("not-installed-at-all")) == []


def test_the_commands_that_fix_a_machine_are_whole_and_each_there_once() -> None:
    old = check_package("trl", "0.1", required_ranges()["trl"], LAPTOP)
    gone = [check_package(name, None, required_ranges()[name], LAPTOP) for name in ("torch", "unsloth")]
    commands = fix_commands([old, *gone, check_card(LAPTOP)], has_uv=True)
    assert commands[0] == f"uv pip install 'trl=={TESTED['trl']}'"
    assert len(commands) == 2
    assert all(shlex.split(command)[0] in ("uv", "echo") for command in commands)
    assert fix_commands([old], has_uv=False)[0].endswith("-m pip install uv")
    assert fix_commands([check_card(LAPTOP)], has_uv=False) == []
