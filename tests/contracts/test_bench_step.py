"""A training step of ours has the gradients of plain TRL's: a tiny replay of both, in float32, on every commit."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lowmem_rl_cli.options import RunRequest

pytest.importorskip("trl")

from lowmem_rl.engine.device import Device
from lowmem_rl.errors import LowMemError
from lowmem_rl.workers import JsonWorker
from lowmem_rl_bench.step import round_robin
from lowmem_rl_bench.step.arms import ARMS, TRL_FAIR, Arm
from lowmem_rl_bench.step.replays import Protocol
from lowmem_rl_bench.step.round_robin import ArmProcess
from lowmem_rl_bench.step.run_bench import measure
from tests.rehearsal.preloaded_python import preloaded_python

pytestmark = pytest.mark.slow  # trains in two processes

TINY = Protocol(
    others=(TRL_FAIR,),
    precisions=("fp32",),
    warmup=1,
    rounds=2,
    shape={"group_size": 4, "prompt_tokens": 24, "completion_tokens": 24},
)


SAID: list[str] = []
SAVED: list[dict] = []


@pytest.fixture(scope="module", autouse=True)
def _arms_have_their_stack_loaded() -> Iterator[None]:
    """The process of an arm with Unsloth has loaded Unsloth, any other plain TRL; on Linux alone."""
    if sys.platform != "linux":
        yield
        return
    with preloaded_python() as unsloth, preloaded_python(is_plain=True) as plain, pytest.MonkeyPatch.context() as patch:

        def start(module: str, log: Path, env: dict[str, str]) -> JsonWorker:
            arm = ARMS.get(log.stem)
            with pytest.MonkeyPatch.context() as for_the_worker:
                for_the_worker.setattr(sys, "executable", str(plain if not arm or arm.stack == "trl" else unsloth))
                return JsonWorker(module, log, env)

        patch.setattr(round_robin, "JsonWorker", start)
        yield


@pytest.fixture(scope="module")
def record() -> dict:
    return measure(RunRequest(preset="tiny-cpu").resolve(), TINY, SAID.append, lambda part: SAVED.append(dict(part)))


def test_the_record_is_saved_after_each_stage_and_only_the_last_one_is_complete(record) -> None:
    assert [list(part["replay"]["fp32"]) for part in SAVED] == [["skewed"], ["skewed", "equal"]]
    assert [part["is_complete"] for part in SAVED] == [False, False]
    assert record["is_complete"]
    assert SAVED[1]["ratios"] == record["ratios"]
    assert "fp32, skewed: 4 steps of 2 arms in turns" in SAID


def test_matrix_products_take_a_share_of_a_step_and_are_not_above_the_peak(record) -> None:
    for arm in record["replay"]["fp32"]["equal"]["arms"].values():
        shares = arm["products"]["shares"]
        assert 0.02 < shares["products"] < 1 - shares["attention"] < 1
        assert 0 < shares["of_peak"] < 1.2  # the peak is measured next to other work
    operations = {
        name: arm["products"]["operations"] for name, arm in record["replay"]["fp32"]["equal"]["arms"].items()
    }
    assert operations["ours"] < operations["trl_fair"]


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


def test_savings_alone_are_saved_after_each_stage_too() -> None:
    protocol, saved = replace(TINY, rounds=1, savings=("compared_separately",)), list[dict]()
    done = measure(RunRequest(preset="tiny-cpu").resolve(), protocol, save=lambda part: saved.append(dict(part)))
    assert [list(part["ablations"]["replay"]) for part in saved] == [["skewed"], ["skewed", "equal"]]
    assert [part["is_complete"] for part in (*saved, done)] == [False, False, True]
    assert done["ablations"]["worth"] == saved[1]["ablations"]["worth"]
    assert done["gradient_error"] == 0.0  # a comparison changes no number


def test_gradients_pass_4_bit_layers_of_plain_transformers_after_a_forward_in_eval() -> None:
    import torch

    from lowmem_rl_bench.step import stacks

    settings = ("memory.checkpointing=none", "memory.micro_batch=8", "model.bits=4")
    config = RunRequest(preset="tiny-cpu", settings=settings).resolve().config
    model = stacks.load(TRL_FAIR, config, Device("cpu", "float32")).model
    stacks.fill_adapter(model, seed=0, b_spread=stacks.B_SPREAD)
    ids = torch.arange(10, 30)[None]

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return {name: parameter.grad for name, parameter in stacks.adapter_of(model).items()}

    before = gradients()
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    model.train()
    torch.testing.assert_close(gradients(), before, rtol=0, atol=0)


def test_the_error_of_an_arm_that_dies_has_its_last_lines(tmp_path) -> None:
    config, cpu = RunRequest(preset="tiny-cpu").resolve().config, Device("cpu", "float32")
    process = ArmProcess(Arm("nobody", "trl", "an arm that no process knows"), config, cpu, tmp_path)
    with pytest.raises(
        LowMemError, match=r"Arm nobody: The worker ended with code 1. It said last:[\s\S]*KeyError: 'nobody'"
    ):
        process.answer()
    process.worker.kill()
