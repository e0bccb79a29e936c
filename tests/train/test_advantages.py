"""Our group advantages are, to the bit, those that TRL computes for a rollout."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.grpo.advantages import group_advantages, is_noise
from lowmem_rl.trl_adapter.trainer import TrainerSetup, make_trainer

SIZE = 4
REWARDS: list[float | None] = [
    *(0.0, 1.0, 0.3, 1.0),
    *(0.1, 0.1, 0.1, 0.1),
    *(1.0, None, 0.0, 0.7),
    *(None, None, None, None),
    *(None, 0.4, None, None),
    *(1e6, -1e6, 1e-6, 0.0),
]


def settings_of(rewards: list[float | None], size: int) -> list[str]:
    return [
        f"grpo.group_size={size}",
        f"grpo.prompts_per_step={len(rewards) // size}",
        "grpo.max_completion_tokens=1",
        f"memory.micro_batch={size}",
        "memory.checkpointing=none",
        "rollout.weights=merged",
        "rewards.think_format=0",
    ]


@pytest.fixture(scope="module")
def policy() -> Policy:
    config, device = resolve(preset="tiny-cpu", settings=settings_of(REWARDS, SIZE)).config, Device("cpu", "float32")
    prepare_process(config, device)
    return load_policy(config, device)


def advantages_of_trainer(
    policy: Policy, out: Path, *more: str, rewards: list[float | None] = REWARDS, size: int = SIZE
) -> torch.Tensor:
    config = resolve(preset="tiny-cpu", settings=[*settings_of(rewards, size), *more]).config
    setup = TrainerSetup(
        config=config,
        sampler=Sampler(policy, config),
        dataset=Dataset.from_list([{"prompt": "x", "example_id": "x"}]),
        reward_functions=[lambda completion_ids, **_: rewards],
        prompt_tokens=lambda example_id: [10],
        out=out,
    )
    trainer = make_trainer(policy, setup)
    trainer.model.train()
    return trainer._generate_and_score_completions([{"prompt": "x", "example_id": "x"}] * len(rewards))["advantages"]


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_advantages_are_those_of_trl(policy: Policy, scale_rewards: str, tmp_path: Path) -> None:
    rewards = torch.tensor([float("nan") if reward is None else reward for reward in REWARDS])
    ours = group_advantages(rewards, SIZE, scale_rewards)
    setting = f"grpo.scale_rewards={scale_rewards}"
    assert torch.equal(ours, advantages_of_trainer(policy, tmp_path, setting))
    skipped = rewards.isnan()
    assert (ours[skipped] == 0).all()
    assert ours[~skipped].count_nonzero() > SIZE


def test_equal_rewards_leave_noise_alone() -> None:
    groups = group_advantages(torch.tensor([0.1] * 8 + [0.1] * 7 + [0.2]), 8, "group").view(-1, 8)
    assert is_noise(groups).tolist() == [True, False]
    assert is_noise(groups + 1e-4).tolist() == [True, False]


ODD: list[float | None] = [
    *(0.0, 0.0, 1.0),
    *(1.0, 0.0, 1.0),
    *(0.2, 0.9, 0.5),
    *(0.1, 0.1, 0.1),
    *(None, 0.0, 1.0),
    *(None, None, None),
]


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_advantages_against_the_median_are_exactly_those_of_the_equation(
    policy: Policy, scale_rewards: str, tmp_path: Path
) -> None:
    settings = ("grpo.baseline=median", f"grpo.scale_rewards={scale_rewards}")
    found = advantages_of_trainer(policy, tmp_path, *settings, rewards=ODD, size=3).view(-1, 3)
    # Of two rewards that are left the median is the lower one.
    above = torch.tensor([[0, 0, 1], [0, -1, 0], [-0.3, 0.4, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])
    scored = [[r for r in ODD[i : i + 3] if r is not None] for i in range(0, len(ODD), 3)]
    spreads = {
        "group": [torch.tensor(group).std() + 1e-4 if len(group) > 1 else torch.tensor(1.0) for group in scored],
        "batch": [torch.tensor([r for group in scored for r in group]).std() + 1e-4] * len(scored),
        "none": [torch.tensor(1.0)] * len(scored),
    }[scale_rewards]
    torch.testing.assert_close(found, above / torch.stack(spreads)[:, None], rtol=1e-5, atol=1e-6)
    assert (found == 0).sum() == (above == 0).sum()  # exactly: such a row costs no update
