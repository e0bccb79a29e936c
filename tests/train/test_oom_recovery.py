"""A run whose memory runs out continues: the same tokens, the same update, the group as large as before."""

import gc
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.oom_faults import (
    MICRO_BATCH,
    PHASES,
    Fault,
    compared,
    is_sound,
    settings_of,
    train,
)
from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.oom import OutOfMemory, RowLimit, catch_oom, is_out_of_memory
from lowmem_rl.errors import TrainingError
from lowmem_rl.grpo.oom_policy import OomPolicy
from lowmem_rl.grpo.oom_retry import TOKEN_MEANS, atomic_step
from lowmem_rl.storage.run_dir import RunDir, read_rows


def too_much_for_torch() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def too_much_for_python() -> None:
    bytearray(2**60)


def raising(error: Exception) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


@pytest.mark.parametrize(
    "allocate",
    [
        too_much_for_torch,
        too_much_for_python,
        raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
        raising(torch.AcceleratorError("CUDA error: out of memory")),
        raising(RuntimeError("Triton Error [CUDA]: out of memory")),
        raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
        raising(RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`")),
        raising(RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`")),
        raising(RuntimeError("CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY")),
        raising(RuntimeError("cudaErrorMemoryAllocation")),
        raising(RuntimeError("CUDA driver error: out of memory")),
        raising(RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")),
        raising(RuntimeError("std::bad_alloc")),
    ],
)
def test_a_failed_allocation_is_known_in_the_words_of_every_library(allocate: Callable[[], None]) -> None:
    assert isinstance(catch_oom(allocate), OutOfMemory)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("out of resource: shared memory, Required: 131072, Hardware limit: 101376."),
        ValueError("out of memory"),
    ],
)
def test_any_other_error_passes(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)):
        catch_oom(raising(error))


def test_what_a_failed_call_held_is_free_before_the_next_try() -> None:
    held: list[Any] = []

    def deep() -> None:
        activations = torch.ones(1000)
        held.append(weakref.ref(activations))
        try:
            too_much_for_torch()
        except RuntimeError as error:
            kept = error  # a frame that holds the exception that holds the frame
            raise kept from None

    gc.disable()
    try:
        catch_oom(deep)
    finally:
        gc.enable()
    assert held[0]() is None


def test_rows_are_halved_until_they_fit_and_stay_so() -> None:
    asked: list[int] = []

    def call(rows: int) -> int:
        asked.append(rows)
        return rows if rows <= 5 else too_much_for_torch()

    limit = RowLimit(lambda rows, why: rows // 2)
    assert [limit.run(call, 24), limit.run(call, 24), limit.run(call, 2)] == [3, 3, 2]
    assert asked == [24, 12, 6, 3, 3, 2]


@pytest.mark.parametrize("phase", PHASES)
def test_a_step_whose_memory_ran_out_is_the_step_it_would_have_been(phase: Any, tmp_path: Path) -> None:
    settings = settings_of(phase, "dapo")
    fault = Fault(phase, 2, 0, times=2) if phase == "optimizer" else Fault(phase, 2, 5)
    undisturbed = train(settings, tmp_path / "undisturbed")
    disturbed = train(settings, tmp_path / "disturbed", fault)
    row = compared(fault, disturbed, undisturbed)
    assert is_sound(row), row
    if phase != "optimizer":
        assert row["rows_after"] <= 5
        assert "--set" in disturbed.notes[-1]


@pytest.mark.parametrize(
    "settings",
    [
        {"grpo.loss": "dr_grpo", "grpo.scale_rewards": "none", "grpo.beta": 0.1},
        {"grpo.loss": "grpo", "grpo.beta": 0.1},
        {"grpo.loss": "grpo"},
        {"grpo.loss": "bnpo"},
        {"grpo.loss": "bnpo", "grpo.beta": 0.1},
        {"grpo.steps_per_rollout": 2},
    ],
)
def test_every_loss_keeps_its_gradient_when_rows_are_cut_finer(settings: dict[str, Any], tmp_path: Path) -> None:
    settings = settings_of("backward", "dapo") | settings
    fault = Fault("backward", 2, 5)
    disturbed, undisturbed = train(settings, tmp_path / "disturbed", fault), train(settings, tmp_path / "undisturbed")
    row = compared(fault, disturbed, undisturbed)
    assert row["rows_before"] == MICRO_BATCH
    assert is_sound(row), row
    # However the rows are cut, the means are over tokens.
    means = [[trained.logged[1][name] for name in TOKEN_MEANS[:2] if name in trained.logged[1]] for trained in
             (disturbed, undisturbed)]  # fmt: skip
    assert means[0] == pytest.approx(means[1], rel=1e-4)
    assert means[0][0] > 0


def test_out_of_memory_outside_of_the_steps_is_an_error_of_two_lines_too(tmp_path: Path) -> None:
    config = resolve(preset="tiny-cpu").config
    oom_policy = OomPolicy(config, tmp_path / "recoveries.jsonl", print, lambda phase, settings: f"less for {phase}")
    with (
        pytest.raises(TrainingError, match="^In the final evaluation: memory ran out") as stopped,
        oom_policy.raising_on_oom("evaluation", lambda: "In the final evaluation"),
    ):
        too_much_for_torch()
    assert stopped.value.hint == "less for evaluation"


def test_a_run_that_finds_no_memory_stops_with_what_to_set(tmp_path: Path) -> None:
    settings = settings_of("backward", "dapo") | {"memory.max_retries": 2}
    with pytest.raises(TrainingError, match="3 times in a row in backward, at last with 3 rows") as stopped:
        train(settings, tmp_path, Fault("backward", 1, 0))
    assert "memory.micro_batch" in stopped.value.hint
    assert [(row["rows"], row["next_rows"]) for row in read_rows(tmp_path / "recoveries.jsonl")] == [
        (12, 6),
        (6, 3),
        (3, None),
    ]


def test_a_row_that_is_begun_is_not_tried_again(cli_here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.trainer_callback import CallbackHandler

    run = RunDir(tmp_path / "run")
    settings = ["grpo.steps=2", "grpo.prompts_per_step=2", "memory.micro_batch=8", "grpo.max_completion_tokens=16"]
    settings += ["eval.examples=4", "eval.quick_examples=4", "eval.every=0"]
    words = [f"--set={setting}" for setting in settings]
    with monkeypatch.context() as patch:
        patch.setattr(CallbackHandler, "on_log", lambda *args, **kwargs: too_much_for_torch())
        ended = cli_here("train", "--preset=tiny-cpu", *words, "--out", run.path)
    assert ended.code == 5, ended.stderr
    assert "error: Step 1: memory ran out in between, after its row was begun" in ended.stderr
    assert "tried again" not in ended.stdout + ended.stderr
    assert "hint: Continue with --resume" in ended.stderr
    (row,) = read_rows(run.recoveries)
    assert (row["step"], row["phase"], row["next_rows"], row["cause"]) == (1, "between", None, "memory")
    assert cli_here("train", "--resume", "--out", run.path).code == 0
    assert [row["step"] for row in read_rows(run.metrics)] == [1, 2]


@pytest.mark.parametrize("settings", [{"fused": True}, {"foreach": True}])
@pytest.mark.parametrize("failing", [1, 2])
def test_an_optimizer_step_happens_once_or_not_at_all(
    settings: dict[str, bool], failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(fails_in: int) -> list[torch.Tensor]:
        weights = [torch.nn.Parameter(torch.ones(4) * i) for i in range(4)]
        whys: list[str] = []
        optimizer = atomic_step(torch.optim.AdamW, whys.append)([*weights], lr=0.1, **settings)
        for step in (1, 2, 3):
            for weight in weights:
                weight.grad = torch.arange(4.0) + step
            with monkeypatch.context() as patch:
                if step == fails_in:
                    tear(patch)
                optimizer.step()
        assert len(whys) == (fails_in > 0)
        return [*weights, *(value for state in optimizer.state.values() for value in state.values())]

    for ours, expected in zip(trained(failing), trained(0), strict=True):
        assert torch.equal(ours, expected)


def test_a_step_that_is_tried_again_holds_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(torch.optim.SGD):
        """Its memory runs out three times."""

        failures = 0

        def step(self, closure: Any = None) -> Any:
            if self.failures < 3:
                self.failures += 1
                too_much_for_torch()
            return super().step(closure)

    copies: list[weakref.ref[torch.Tensor]] = []
    held: list[int] = []
    plain = torch.cat

    def cat(*args: Any, **kwargs: Any) -> torch.Tensor:
        joined = plain(*args, **kwargs)
        copies.append(weakref.ref(joined))
        held.append(sum(copy() is not None for copy in copies))
        return joined

    whys: list[str] = []
    optimizer = atomic_step(Short, whys.append)([torch.nn.Parameter(torch.ones(4))], lr=0.1)
    monkeypatch.setattr(torch, "cat", cat)
    optimizer.step()
    assert len(whys) == 3
    assert max(held) == 1


def tear(patch: pytest.MonkeyPatch) -> None:
    """Lets the next step of AdamW fail in its middle: the states' counters are raised, some averages have moved."""
    failed = False

    def torn(function: Callable[..., Any]) -> Callable[..., Any]:
        def short(tensors: Any, *others: Any, **settings: Any) -> Any:
            nonlocal failed
            if not failed:
                failed = True
                tensors[0].add_(1.0)
                too_much_for_torch()
            return function(tensors, *others, **settings)

        return short

    for name in ("_fused_adamw_", "_foreach_sqrt"):
        patch.setattr(torch, name, torn(getattr(torch, name)))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.usefixtures("preloaded")
def test_a_process_that_is_really_short_of_memory_recovers_and_finishes(tmp_path: Path) -> None:
    """64 rows need some 330 MB beyond what the loaded model holds; 200 are left."""
    run = RunDir(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.short_of_memory", run.path],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first = next(read_rows(run.recoveries))
    assert "allocate" in first["why"]
    assert first["next_rows"] < first["rows"]
    assert [row["step"] for row in read_rows(run.metrics)] == [1, 2]
    groups = Counter((row["step"], row["example_id"]) for row in read_rows(run.samples))
    assert set(groups.values()) == {8}
