"""What was measured here corrects later predictions; a file that makes no sense does not."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory import driver_overhead
from lowmem_rl.memory.calibration import (
    LEAST,
    MOST,
    OVERHEAD_FORMULAS,
    CalibrationRow,
    Footprint,
    calibration_for,
    calibration_path,
    footprint,
    read_rows,
    store,
)
from lowmem_rl.memory.estimate import estimate
from lowmem_rl.memory.workload import workload_of
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl.units import GIB

A6000 = CARDS["a6000"]
SHAPE = load_shape("Qwen/Qwen2.5-7B-Instruct")
RESOLVED = with_overrides(RunConfig(), {"memory.checkpointing": "unsloth", "rollout.weights": "quantized"})


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def row(**changes: Any) -> CalibrationRow:
    """Backward: 10 GiB of tensors, 1 predicted around them and 1.5 measured."""
    settings: dict[str, Any] = {
        "date": date(2026, 11, 20),
        "source": "measure",
        "card": "a6000",
        "stack": "unsloth",
        "phase": "backward",
        "predicted": Footprint(allocated_bytes=10 * GIB, reserved_bytes=10 * GIB, process_bytes=11 * GIB),
        "measured": Footprint(allocated_bytes=8 * GIB, reserved_bytes=9 * GIB, process_bytes=int(9.5 * GIB)),
        "model": {},
        "workload": {},
        "versions": {},
    }
    return CalibrationRow(**settings | changes)


def test_the_factor_is_the_overhead_measured_over_the_overhead_predicted() -> None:
    later = row(date=date(2026, 11, 21), phase="rollout", measured=Footprint(process_bytes=12 * GIB))
    store([row(), later])
    found = calibration_for(A6000, "unsloth")
    # (9.5 - 8) + (12 - the 10 predicted, since tensors were not counted), over 1 + 1
    assert found.factor == pytest.approx(1.75)
    assert found.rows == 2
    assert str(found) == "calibrated on this card, 2026-11-21"


def test_what_was_measured_elsewhere_says_nothing_here() -> None:
    store([row(card="t4"), row(stack="trl"), row(overhead_formulas=OVERHEAD_FORMULAS - 1)])
    assert calibration_for(A6000, "unsloth") is None
    assert calibration_for(None, "unsloth") is None


def test_a_calibrated_estimate_changes_nothing_but_the_overhead() -> None:
    store([row()])
    before = estimate(workload_of(RESOLVED, SHAPE), SHAPE, A6000)
    after = calibration_for(A6000, "unsloth").apply(before, A6000)
    assert after.allocated_bytes == before.allocated_bytes
    for phase, parts in before.phases.items():
        around = footprint(parts).process_bytes - footprint(parts).allocated_bytes
        assert after.phase_bytes(phase) - before.phase_bytes(phase) == pytest.approx(0.5 * around, abs=2)
    assert after.upper_bytes > before.upper_bytes
    assert {one.grade for one in after.phases["backward"] if one.name == driver_overhead.CONTEXT} == {"measured here"}


def test_measuring_less_lowers_what_is_expected_but_not_the_bound() -> None:
    store([row(measured=Footprint(allocated_bytes=8 * GIB, process_bytes=int(8.6 * GIB)))])
    before = estimate(workload_of(RESOLVED, SHAPE), SHAPE, A6000)
    after = calibration_for(A6000, "unsloth").apply(before, A6000)
    assert after.expected_bytes < before.expected_bytes
    assert after.upper_bytes == before.upper_bytes


@pytest.mark.parametrize(("process_gib", "factor"), [(40, MOST), (8, LEAST)])
def test_the_factor_is_bounded(process_gib: int, factor: float) -> None:
    store([row(measured=Footprint(allocated_bytes=8 * GIB, process_bytes=process_gib * GIB))])
    assert calibration_for(A6000, "unsloth").factor == factor


GOOD = row().model_dump(mode="json")
HOSTILE = {
    "torn": '{"date": "2026-',
    "no object": "[1, 2]",
    "negative": json.dumps(GOOD | {"measured": {"process_bytes": -1}}),
    "not a number": json.dumps(GOOD | {"measured": {"process_bytes": float("nan")}}),
    "text": json.dumps(GOOD | {"measured": {"process_bytes": "9"}}),
    "endless": '{"date": ' + "9" * 5000 + "}",
    "a thousandfold": json.dumps(GOOD | {"measured": {"process_bytes": 11_000 * GIB}}),
    "a millionth": json.dumps(GOOD | {"measured": {"process_bytes": 11_000}}),
    "tensors outside the process": json.dumps(GOOD | {"measured": {"allocated_bytes": 20 * GIB, "process_bytes": GIB}}),
    "another schema": json.dumps(GOOD | {"factor": 7}),
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE)
def test_an_invalid_line_is_left_out_and_reported_once(line: str) -> None:
    store([row()])
    with calibration_path().open("a") as file:
        file.write(line + "\n")
    reported: list[str] = []
    assert calibration_for(A6000, "unsloth", reported.append).factor == pytest.approx(1.5)
    assert len(reported) == 1
    assert "1 of 2 lines are ignored" in reported[0]
    assert "line 2" in reported[0]


def test_a_file_that_is_none_costs_a_line_and_no_run() -> None:
    calibration_path().mkdir(parents=True)
    reported: list[str] = []
    assert read_rows(reported.append) == []
    store([row()], reported.append)
    assert ["is ignored" in reported[0], "cannot be written" in reported[1]] == [True, True]
    calibration_path().rmdir()
    calibration_path().write_bytes(b"\xff\xfe\x00")
    assert calibration_for(A6000, "unsloth", reported.append) is None
    assert len(reported) == 3


def test_without_a_measurement_there_is_nothing_to_say() -> None:
    reported: list[str] = []
    assert calibration_for(A6000, "unsloth", reported.append) is None
    assert reported == []
