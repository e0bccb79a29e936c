"""One real step of the embedded model, each phase's peak with its prediction."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from lowmem_rl_cli.options import RunRequest

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine import continuous_batching
from lowmem_rl.engine.decoder import step
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy
from lowmem_rl.entrypoints.longest_step import LAST_TOKENS, sampler_up_to_the_limit
from lowmem_rl.entrypoints.measure_memory import Measurement, measure, out_of_memory
from lowmem_rl.memory.calibration import calibration_for, calibration_path, read_rows
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.plan import plan
from lowmem_rl.planning.search import resolve_auto
from lowmem_rl.telemetry.memory_profiler import MemoryProfiler, measures_each_phase
from lowmem_rl.training.learning_layers import LearningLayers
from lowmem_rl.units import MIB

CPU = Device("cpu", "float32")
SMALL = ("grpo.prompts_per_step=4", "memory.micro_batch=16", "eval.batch=16", "grpo.steps=3")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this module's own: what is measured here must not correct other tests' predictions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield calibration_path()


@pytest.fixture(scope="module")
def measured(cache: Path) -> Measurement:
    return measure(RunRequest(preset="tiny-cpu", settings=SMALL).resolve())


RUN = resolve_auto(resolve(preset="tiny-cpu").config, load_shape("tiny"), 2**33, None)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(RUN, CPU)


def test_every_phase_of_the_estimate_is_measured(measured: Measurement) -> None:
    assert [row.phase for row in measured.rows] == ["load", "rollout", "backward", "optimizer", "evaluation", "save"]
    for row in measured.rows:
        assert row.measured.process_bytes > 100 * MIB
        assert row.measured.allocated_bytes is None  # PyTorch counts tensors on a GPU alone
        assert row.predicted.process_bytes > row.predicted.allocated_bytes > 0


def test_the_step_is_as_long_as_the_run_can_meet(measured: Measurement) -> None:
    # the embedded model ends by itself after some 40 tokens
    assert measured.lengths.completion_tokens == measured.limits.completion_tokens == 64
    assert 0 < measured.lengths.prompt_tokens < measured.limits.prompt_tokens
    assert {row.workload["completion_tokens"] for row in measured.rows} == {64}


def test_the_whole_step_takes_no_more(measured: Measurement) -> None:
    whole = measure(RunRequest(preset="tiny-cpu", settings=SMALL).resolve(), repeats_nothing=False)
    assert whole.lengths == measured.lengths
    peaks = {row.phase: row.measured.process_bytes for row in measured.rows}
    for row in whole.rows:
        # The allocator of the C library keeps what earlier phases gave back, some of it or all.
        assert row.measured.process_bytes < peaks[row.phase] + 100 * MIB


def test_generate_is_measured_as_well(measured: Measurement) -> None:
    settings = (*SMALL, "rollout.engine=generate", "memory.rollout_rows=4")
    found = measure(RunRequest(preset="tiny-cpu", settings=settings).resolve())
    assert found.lengths == measured.lengths
    assert {row.workload["rollout_engine"] for row in found.rows} == {"generate"}


def test_rows_keep_their_length_when_only_their_last_tokens_are_sampled(policy: Policy) -> None:
    sampler = sampler_up_to_the_limit(policy, RUN)
    tokens, steps = RUN.grpo.max_completion_tokens, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(continuous_batching, "step", lambda *args: steps.append(args[2].clone()) or step(*args))
        found = sampler.rollout([[5, 6, 7], [8, 9]], ["one", "other"])
    assert [len(row.ids) for row in found] == [tokens, tokens]
    assert policy.tokenizer.pad_token_id not in [*found[0].ids, *found[1].ids]
    assert len(steps) < 2 * LAST_TOKENS < tokens
    assert steps[-1].tolist() == [3 + tokens - 2, 2 + tokens - 2]  # the place of the last token but one
    assert not sampler.is_off  # what was left out is not held against the sampler


def test_the_optimizers_states_are_predicted_from_its_first_step_on(measured: Measurement) -> None:
    tensors = {row.phase: row.predicted.allocated_bytes for row in measured.rows}
    assert tensors["load"] < tensors["save"]


def test_what_was_measured_corrects_the_next_prediction(measured: Measurement, cache: Path) -> None:
    assert len(read_rows()) >= len(measured.rows)
    assert measured.calibration.rows == len(measured.rows)
    assert str(calibration_for(None, "unsloth")).startswith("calibrated on this CPU, 20")


def test_the_command_prints_predicted_and_measured(measured: Measurement, capsys, tmp_path) -> None:
    from lowmem_rl_cli.measure_command import measure_command

    settings = (*SMALL, "grpo.steps_per_rollout=2", "memory.rollout_rows=16")
    scheduled = ("trainable.schedule=gradual_unfreezing", "trainable.every=2")
    learned: list[set[object]] = []

    def note(hook: LearningLayers) -> None:
        learned.append({layer for layer, weights in hook.weights.items() if any(w.grad is not None for w in weights)})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LearningLayers, "before_optimizer_step", note)
        measure_command(RunRequest(preset="tiny-cpu", settings=(*settings, *scheduled)), as_json=False)
    printed, talk = capsys.readouterr()
    assert learned[0] == {1, 2}  # of the third step: the first two have the last layer alone
    assert "of gradual_unfreezing the heaviest step, 3, in which layers 1-2 learn" in " ".join(printed.split())
    assert re.search(r"phase +process, predicted +process, measured", printed)
    assert re.search(r"logprobs +\d+\.\d\d +\d+\.\d\d\n", printed)  # a rollout of two steps is scored once more
    assert "calibrated on this CPU" in printed
    assert "loading tiny" in talk
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not measures_each_phase(CPU), reason="this system does not reset a process's peak")
def test_a_phase_does_not_show_the_peak_of_an_earlier_one() -> None:
    meter = MemoryProfiler(CPU)
    meter.begin()
    block = bytearray(200 * MIB)
    meter.end("rollout")
    del block
    meter.begin()
    meter.end("save")
    assert meter.phases["rollout"].process_bytes - meter.phases["save"].process_bytes > 150 * MIB
    assert meter.highest_bytes >= meter.phases["rollout"].process_bytes  # earlier tests may have held more


def test_out_of_memory_is_reported_with_its_phase_and_the_cheapest_change(measured: Measurement) -> None:
    meter = MemoryProfiler(CPU)
    meter.phases = {row.phase: row.measured for row in measured.rows[:2]}
    planned = plan(RunConfig(), load_shape("Qwen/Qwen2.5-7B-Instruct"), CARDS["t4"])
    error = out_of_memory(meter, planned)
    assert error.exit_code == 4
    assert "in the phase backward" in str(error)
    assert error.hint.startswith("Cheapest change: ")
