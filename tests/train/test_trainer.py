"""What building a trainer does to the policy: nothing."""

from pathlib import Path

import pytest
import torch

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import load_policy, prepare_process
from lowmem_rl.example import Example
from lowmem_rl_bench.step import stacks
from lowmem_rl_bench.step.arms import OURS


@pytest.mark.parametrize("bits", [4, 16])
def test_a_trainer_rounds_no_weight_of_the_adapter(bits: int, tmp_path: Path) -> None:
    settings = [f"model.bits={bits}", "memory.checkpointing=none", "memory.micro_batch=8", "grpo.prompts_per_step=1"]
    config, device = resolve(preset="tiny-cpu", settings=settings).config, Device("cpu", "float32")
    prepare_process(config, device)
    policy = load_policy(config, device)
    stacks.fill_adapter(policy.model, 0, stacks.B_SPREAD)
    loaded = {name: weight.detach().clone() for name, weight in stacks.adapter_of(policy.model).items()}
    examples = {"one": Example("one", ({"role": "user", "content": "1 + 1"},), "2")}
    config = config.model_copy(update={"rewards": {"recorded": 1.0}})
    stacks.build(OURS, policy, None, stacks.TrainerSpec(config, examples, [no_reward], [], tmp_path))
    assert all(torch.equal(weight, loaded[name]) for name, weight in stacks.adapter_of(policy.model).items())


def no_reward(**_: object) -> list[float]:
    return []
