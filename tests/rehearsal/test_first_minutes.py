"""The script for a card's first minutes runs to its end on a simulated one, so that a real one's are not lost."""

import json
import math
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.memory.accuracy import score
from lowmem_rl.memory.measured_rows import read_rows
from tests.rehearsal.stage import ROOT, Stage

pytestmark = pytest.mark.long
PARTS = [
    "card",
    "does it run",
    "weights, embedded",
    "memory, embedded",
    "decode, embedded",
    "step, embedded",
    "out of memory, embedded",
]
PHASES = ["load", "rollout", "backward", "optimizer", "evaluation", "save"]


def first_minutes(*arguments: str) -> int:
    """Runs the script as a user does; returns its exit code."""
    script = str(ROOT / "benchmarks" / "gpu" / "first_minutes.py")
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture(scope="module")
def record(a6000: Stage, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("first-minutes") / "gpu-a6000-quick.json"
    code = a6000.call(first_minutes, "--quick", "--out", str(out))
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert code == 0, [part for part in found["parts"] if part["status"] == "failed"]
    return found


def part(record: dict[str, Any], name: str) -> Any:
    return next(part["found"] for part in record["parts"] if part["name"].startswith(name))


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


def test_every_part_is_done_and_its_numbers_are_finite(record: dict[str, Any]) -> None:
    assert [(part["name"], part["status"]) for part in record["parts"]] == [(name, "done") for name in PARTS]
    assert all(math.isfinite(number) for number in numbers(record))
    assert record["machine"]["gpu"] == "RTX A6000"
    assert record["command"] == "python3 benchmarks/gpu/first_minutes.py --minutes 15 --quick"


def test_a_killed_run_resumed_as_if_it_had_not_been_killed(record: dict[str, Any]) -> None:
    found = part(record, "does it run")
    assert found["resumed"] == {"exact": True, "differences": [], "adapter_distance": 0.0}
    assert found["export"]["holds"]
    assert found["export"]["tokens"]["same"] == found["export"]["tokens"]["items"] == 8


def test_memory_is_measured_by_phase_in_a_row_that_profile_can_score(record: dict[str, Any], tmp_path: Path) -> None:
    found = part(record, "memory")
    assert list(found["phases"]) == PHASES
    for sizes in found["phases"].values():
        assert all(size["measured"] > 0 for size in sizes.values())
    assert found["planned"]["rollout_weights"] == record["memory_rows"][0]["rollout_weights"] == "merged"
    rows = tmp_path / "rows.json"
    named = {"model": "Qwen/Qwen2.5-1.5B-Instruct"}  # the embedded model is in no catalogue
    rows.write_text(json.dumps([row | named for row in record["memory_rows"]]))
    assert score(read_rows(rows)).left_out == {}


def test_speeds_are_measured_for_each_kind_of_weights(record: dict[str, Any]) -> None:
    decode = part(record, "decode")
    assert decode["left_out"] == {}
    assert {way for ways in decode["rows"].values() for way in ways} == {"quantized", "merged", "unsloth"}
    step = part(record, "step")
    assert set(step["seconds"]) == {"ours", "unsloth"}
    assert step["gradient_error"] < 0.05  # bfloat16


def speeds_where_one_way_does_not_fit() -> Any:
    import torch

    from benchmarks.gpu.decode_speed import in_turns

    def fits(rows: int, tokens: int) -> None:
        torch.zeros(rows, tokens, device="cuda")

    def too_large(rows: int, tokens: int) -> None:
        torch.empty(2**40, dtype=torch.uint8, device="cuda")

    return in_turns({"quantized": fits, "merged": too_large}, 64, {"tokens": (1, 4), "rounds": 2})


def test_rows_that_do_not_fit_are_left_out_and_others_are_kept(a6000: Stage) -> None:
    times, left_out = a6000.call(speeds_where_one_way_does_not_fit)
    assert len(times["quantized"]) == 2
    assert list(times) == ["quantized"]
    assert "allocate memory" in left_out["merged"]  # the simulated card's memory is the host's


def test_memory_ran_out_in_a_step_that_was_done_all_the_same(record: dict[str, Any]) -> None:
    found = part(record, "out of memory")
    assert found["held_bytes"] < found["limit_bytes"] < found["peak_bytes"]
    assert {row["phase"] for row in found["recoveries"]} >= {"backward"}
    assert found["groups"] == [8] * 24


def test_no_place_of_this_machine_is_in_the_record(record: dict[str, Any]) -> None:
    text = json.dumps(record)
    assert str(ROOT) not in text
    assert "first-minutes-" not in text
