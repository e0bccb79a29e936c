import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl.trl_adapter.grpo_args import adjustments, grpo_arguments, unsloth_arguments

CPU, GPU = Device("cpu", "float32"), Device("cuda", "bfloat16")


def config(**sections: dict) -> RunConfig:
    """A run whose checkpointing is chosen."""
    run = RunConfig.model_validate(sections)
    return run if run.memory.checkpointing != "auto" else with_overrides(run, {"memory.checkpointing": "unsloth"})


@given(st.integers(2, 64), st.integers(1, 16), st.integers(1, 4), st.sampled_from([1, 2]))
def test_the_generation_batch_is_whole_groups_whatever_the_micro_batch(group, prompts, steps, micro) -> None:
    run = config(
        grpo={"group_size": group, "prompts_per_step": prompts, "steps_per_rollout": steps},
        memory={"micro_batch": micro if group * prompts % micro == 0 else 1},
    )
    arguments = grpo_arguments(run, GPU, Path("out"))
    per_step = arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"]
    rollout = arguments["per_device_train_batch_size"] * arguments["steps_per_generation"]
    assert per_step == group * prompts
    assert rollout == group * prompts * steps


def test_what_unsloth_would_fill_in_is_given_explicitly() -> None:
    arguments = grpo_arguments(config(), GPU, Path("out"))
    assert arguments["epsilon_high"] == 0.2
    assert arguments["mask_truncated_completions"] is False
    assert arguments["steps_per_generation"] is not None
    assert unsloth_arguments(config(), GPU) == {"unsloth_grpo_mini_batch": 1}


@pytest.mark.parametrize(
    "grpo", [{"beta": 0.04}, {"steps_per_rollout": 2}, {"passes_per_rollout": 2}, {"beta": 0.1, "group_size": 6}]
)
@pytest.mark.parametrize("micro_batch", [1, 2, 8])
def test_log_probs_of_a_rollout_are_computed_a_micro_batch_at_a_time(grpo, micro_batch) -> None:
    run = config(grpo=grpo, memory={"micro_batch": micro_batch})
    count = unsloth_arguments(run, GPU)["unsloth_grpo_mini_batch"]
    assert math.ceil(run.rows_per_rollout / count) == micro_batch


def test_unsloths_own_arguments_are_not_given_on_a_cpu() -> None:
    assert unsloth_arguments(config(), CPU) == {}


@pytest.mark.parametrize(
    ("dtype", "flags"), [("bfloat16", (True, False)), ("float16", (False, True)), ("float32", (False, False))]
)
def test_the_number_format_sets_both_flags(dtype, flags) -> None:
    arguments = grpo_arguments(config(), Device("cuda", dtype), Path("out"))
    assert (arguments["bf16"], arguments["fp16"]) == flags


def test_a_cpu_has_no_pages_and_says_so() -> None:
    run = config(optimizer={"name": "paged_adamw_8bit"}, memory={"checkpointing": "none"})
    (adjustment,) = adjustments(run, CPU)
    assert adjustment.key == "optimizer.name"
    assert grpo_arguments(run, CPU, Path("out"))["optim"] == adjustment.used == "adamw_8bit"
    assert adjustments(run, GPU) == []
    unpaged = config(optimizer={"name": "adamw_8bit"}, memory={"checkpointing": "none"})
    assert adjustments(unpaged, CPU) == []


def test_the_order_of_a_curriculum_is_not_shuffled() -> None:
    assert grpo_arguments(config(), CPU, Path("out"))["shuffle_dataset"] is True
    assert grpo_arguments(config(curriculum={"by": "level"}), CPU, Path("out"))["shuffle_dataset"] is False


def test_a_reward_of_weight_0_is_left_out_of_the_weights() -> None:
    run = config(rewards={"boxed_answer": 1.0, "think_format": 0.0, "random": 0.5})
    assert grpo_arguments(run, CPU, Path("out"))["reward_weights"] == [1.0, 0.5]
