"""The checks of `lowmem-rl prove`, each as a test, on the card of this machine: `pytest -m gpu tests/gpu`."""

import time
from pathlib import Path

import pytest

from lowmem_rl.config.presets import default_preset
from lowmem_rl.models.hardware import Machine
from lowmem_rl_bench.prove.checks import CHECKS, FAILED, LEFT_OUT, Check, taken
from lowmem_rl_bench.prove.processes import Site
from lowmem_rl_bench.prove.subject import Subject, weights_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all checks: some share a run."""
    return tmp_path_factory.mktemp("prove")


@pytest.mark.gpu
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_the_check_holds_on_this_card(check: Check, machine: Machine, folder: Path) -> None:
    preset = default_preset(machine.card and machine.card.key)
    subject = Subject(machine, preset, weights_of(preset, quick=False, random=False))
    entry, _ = taken(check, Site(folder, time.monotonic() + check.limit_s), subject)
    if entry["status"] == LEFT_OUT:
        pytest.skip(entry["result"])
    assert entry["status"] != FAILED, entry["result"]
