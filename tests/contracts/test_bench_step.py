"""A training step of ours has the gradients of plain TRL's: a tiny replay of both, in float32, on every commit."""

import pytest
from lowmem_rl_cli.options import RunRequest

pytest.importorskip("trl")

from lowmem_rl.engine.device import Device
from lowmem_rl.errors import LowMemError
from lowmem_rl_bench.step.arms import TRL_FAIR, Arm
from lowmem_rl_bench.step.replays import Protocol
from lowmem_rl_bench.step.round_robin import ArmProcess
from lowmem_rl_bench.step.run_bench import measure

pytestmark = pytest.mark.slow  # loads the stack twice

TINY = Protocol(
    others=(TRL_FAIR,),
    precisions=("fp32",),
    warmup=1,
    rounds=2,
    shape={"group_size": 4, "prompt_tokens": 24, "completion_tokens": 24},
)


@pytest.fixture(scope="module")
def record() -> dict:
    return measure(RunRequest(preset="tiny-cpu").resolve(), TINY)


def test_the_gradients_are_those_of_plain_trl(record) -> None:
    for found in record["replay"]["fp32"].values():
        assert found["gradient_errors"]["trl_fair"] <= 1e-5
        # Adam makes a full step of a gradient that is only rounding, so weights differ more than gradients.
        assert found["weight_errors"]["trl_fair"] <= 5e-4


def test_ours_does_less_work_for_the_same_tokens(record) -> None:
    ours, theirs = (record["replay"]["fp32"]["skewed"]["arms"][name] for name in ("ours", "trl_fair"))
    assert ours["useful_tokens"] == theirs["useful_tokens"]
    # a row that ends with its first token leaves after its second
    assert ours["sampled"]["row_steps"] <= 1.05 * ours["useful_tokens"] < theirs["sampled"]["row_steps"]
    assert ours["updated"]["rows"] == theirs["updated"]["rows"] * 5 / 8
    assert ours["engine"]["engine"] == "lowmem"


def test_a_record_has_a_ratio_for_each_arm_and_set(record) -> None:
    assert set(record["ratios"]["trl_fair"]) == {"replay_skewed", "replay_equal", "live"}
    assert record["gradient_error"] <= 1e-5


def test_the_error_of_an_arm_that_dies_has_its_last_lines(tmp_path) -> None:
    config, cpu = RunRequest(preset="tiny-cpu").resolve().config, Device("cpu", "float32")
    process = ArmProcess(Arm("nobody", "trl", "an arm that no process knows"), config, cpu, tmp_path)
    with pytest.raises(
        LowMemError, match=r"Arm nobody: The worker ended with code 1. It said last:[\s\S]*KeyError: 'nobody'"
    ):
        process.answer()
    process.worker.kill()
