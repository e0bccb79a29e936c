"""The comparison with other estimators: it runs without the optional ones, and its record has them."""

import json
from pathlib import Path

import pytest

from benchmarks.memory_peers import FILES, RECORDS, accelerate_rule, compare, fitcheck_estimator
from lowmem_rl.models.lookup import load_shape


@pytest.mark.slow
def test_ours_comes_nearer_than_the_published_rule_on_both_files() -> None:
    found = compare({"accelerate": accelerate_rule})
    assert found["summary"].keys() == FILES.keys()
    for stacks in found["summary"].values():
        errors = stacks["all"]
        assert errors["lowmem-rl"]["rows"] >= 30
        assert errors["lowmem-rl"]["rows"] > errors["accelerate"]["rows"] >= 17  # nothing in 4 bit
        assert errors["lowmem-rl"]["mean"] <= 0.10 < errors["accelerate"]["mean"]


def test_accelerates_rule_is_what_its_command_calls_training() -> None:
    """Four times the weights in float32; in 16 bit twice, for it halves the size before and takes it for float32's."""
    from lowmem_rl.memory.accuracy import score
    from lowmem_rl.memory.measured_rows import read_rows

    row = next(one.row for one in score(read_rows(FILES["own rows"])).scored if one.row.method == "full")
    shape = load_shape("Qwen/Qwen2.5-7B")
    assert accelerate_rule(row.model_copy(update={"weight_bytes": 4}), shape) == 16 * shape.num_params
    assert accelerate_rule(row.model_copy(update={"weight_bytes": 2}), shape) == 4 * shape.num_params
    assert accelerate_rule(row.model_copy(update={"method": "qlora"}), shape) is None


def test_an_absent_tool_is_left_out(tmp_path: Path) -> None:
    assert fitcheck_estimator(tmp_path) is None


def test_the_record_has_every_tool_by_stack() -> None:
    record = json.loads((RECORDS / "memory-peers.json").read_text())
    for stacks in record["summary"].values():
        assert stacks["all"].keys() == {"accelerate", "fitcheck-llm", "lowmem-rl", "unsloth studio"}
