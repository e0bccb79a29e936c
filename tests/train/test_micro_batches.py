"""Micro-batches cut from a rollout give TRL's own loss the gradient that TRL's cut gives it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.grpo.batch import Batch
from lowmem_rl.grpo.micro_batches import BatchPlan, cut
from lowmem_rl.trl_adapter.prefix_sharing import PrefixSharingMixin
from lowmem_rl.trl_adapter.trainer import TrainerSetup, batch_plan_of, make_trainer

GROUPS, SIZE, PROMPT, COMPLETION = 6, 4, 12, 20
ROWS = GROUPS * SIZE
PLAN = BatchPlan(
    group_size=SIZE,
    micro_batch=6,
    steps=1,
    loss="dapo",
    drops_dead_rows=True,
    keeps_groups=False,
    shares_prompts=False,
    max_prompt_tokens=PROMPT,
    max_completion_tokens=COMPLETION,
)


def rollout(dead_groups: int = 2, seed: int = 0) -> Batch:
    """Rows of skewed lengths, group by group; the first groups are dead."""
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(3, PROMPT + 1, (GROUPS,), generator=generator).repeat_interleave(SIZE)
    completions = torch.randint(1, COMPLETION + 1, (ROWS,), generator=generator)
    completions[-1] = COMPLETION
    prompts[: SIZE * 2] = PROMPT
    advantages = torch.randn(GROUPS, SIZE, generator=generator)
    advantages[:dead_groups] = 0.0
    return {
        "prompt_ids": torch.randint(10, 300, (GROUPS, PROMPT), generator=generator).repeat_interleave(SIZE, 0),
        "prompt_mask": (torch.arange(PROMPT) >= PROMPT - prompts[:, None]).long(),
        "completion_ids": torch.randint(10, 300, (ROWS, COMPLETION), generator=generator),
        "completion_mask": (torch.arange(COMPLETION) < completions[:, None]).long(),
        "advantages": advantages.flatten(),
        "num_items_in_batch": completions.sum(),
    }


def rows_in(batch: Batch, whole: Batch) -> list[int]:
    """Which rows of the rollout a micro-batch holds, known by their tokens."""
    seen = whole["completion_ids"]
    width = batch["completion_ids"].shape[1]
    return [int((seen[:, :width] == ids).all(1).nonzero()[0]) for ids in batch["completion_ids"]]


def full(slots: tuple[Batch | None, ...]) -> list[Batch]:
    return [slot for slot in slots if slot is not None]


@pytest.mark.parametrize("loss", ["dapo", "dr_grpo", "grpo", "bnpo"])
def test_every_live_row_is_in_one_micro_batch_and_no_dead_one_is(loss: str) -> None:
    batch = rollout()
    found = cut(batch, replace(PLAN, loss=loss), seed=1)
    assert sorted(row for part in full(found.slots) for row in rows_in(part, batch)) == list(range(2 * SIZE, ROWS))
    assert found.dead_rows == 2 * SIZE
    assert len(found.slots) == ROWS // PLAN.micro_batch


def test_micro_batches_hold_no_column_of_padding_alone_and_stay_within_the_plan() -> None:
    parts = full(cut(rollout(), PLAN, seed=1).slots)
    widths = [part["prompt_ids"].shape[1] + part["completion_ids"].shape[1] for part in parts]
    assert min(widths) < PROMPT + COMPLETION
    for part, width in zip(parts, widths, strict=True):
        assert part["prompt_mask"][:, 0].any()
        assert part["completion_mask"][:, -1].any()
        assert len(part["advantages"]) * width <= PLAN.micro_batch * (PROMPT + COMPLETION)


@pytest.mark.parametrize("loss", ["dapo", "dr_grpo", "grpo", "bnpo"])
@pytest.mark.parametrize("drops_dead_rows", [True, False])
def test_a_finer_cut_holds_the_same_rows_until_each_is_alone(loss: str, drops_dead_rows: bool) -> None:
    batch, plan = rollout(), replace(PLAN, loss=loss, drops_dead_rows=drops_dead_rows, steps=2)
    most = []
    for rows in (6, 3, 1, 1, 1, 1):
        slots = cut(batch, plan, seed=1).slots
        assert len(slots) == ROWS // PLAN.micro_batch * plan.cuts_each_into
        assert plan.rows_together == rows
        assert sorted(row for part in full(slots) for row in rows_in(part, batch)) == list(
            range(2 * SIZE * drops_dead_rows, ROWS)
        )
        for step, side in enumerate((slots[: len(slots) // 2], slots[len(slots) // 2 :])):
            whole = cut(batch, replace(plan, cuts_each_into=1), seed=1).slots[step * 2 : step * 2 + 2]
            ours, theirs = ({row for part in full(some) for row in rows_in(part, batch)} for some in (side, whole))
            assert ours == theirs
        most.append(max(len(part["advantages"]) for part in full(slots)))
        plan = plan.finer(max(rows // 2, 1))
    assert most == sorted(most, reverse=True)
    assert most[-1] == 1


def test_groups_are_split_only_if_fewer_rows_than_one_fit() -> None:
    plan = replace(PLAN, micro_batch=8, keeps_groups=True)
    assert plan.finer(4).keeps_groups
    assert not plan.finer(2).keeps_groups


def test_a_micro_batch_of_short_rows_holds_more_of_them() -> None:
    batch = rollout(dead_groups=0)
    batch["completion_mask"][:, 2:] = 0
    batch["prompt_mask"][:, :-3] = 0
    assert len(full(cut(batch, PLAN, seed=0).slots)) == 1


def test_if_all_rows_are_dead_one_stays_so_that_the_optimizer_takes_its_step() -> None:
    found = cut(rollout(dead_groups=GROUPS), PLAN, seed=0)
    (part,) = full(found.slots)
    assert part["advantages"].tolist() == [0.0]
    assert found.dead_rows == ROWS - 1


def test_equal_advantages_are_noise_around_none() -> None:
    batch = rollout(dead_groups=0)
    batch["advantages"][:SIZE] = 1e-4  # what float32 makes of eight equal rewards
    assert cut(batch, PLAN, seed=0).dead_rows == SIZE


def test_a_row_that_is_masked_out_of_the_loss_is_dead() -> None:
    batch = rollout(dead_groups=0)
    batch["completion_mask"][5] = 0
    assert cut(batch, PLAN, seed=0).dead_rows == 1


def test_if_prompts_are_shared_rows_are_sorted_by_the_length_of_their_completions() -> None:
    parts = full(cut(rollout(dead_groups=0), replace(PLAN, shares_prompts=True), seed=0).slots)
    longest = [int(part["completion_mask"].sum(1).max()) for part in parts]
    shortest = [int(part["completion_mask"].sum(1).min()) for part in parts]
    assert len(parts) > 1
    assert all(low >= high for low, high in zip(shortest[:-1], longest[1:], strict=True))


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo"])
def test_under_a_kl_penalty_too_groups_stay_whole_if_kernels_share_their_prompt(loss: str) -> None:
    plan = replace(PLAN, loss=loss, micro_batch=8, keeps_groups=True, drops_dead_rows=False)
    batch = rollout()
    for part in full(cut(batch, plan, seed=1).slots):
        rows = rows_in(part, batch)
        groups = [row // SIZE for row in rows]
        assert all(groups.count(group) == SIZE for group in groups)
        assert groups == sorted(groups, key=groups.index)  # and neighbours


def test_whole_groups_stay_together_if_the_kernels_share_their_prompt() -> None:
    batch = rollout()
    batch["advantages"][-1] = 0.0
    plan = replace(PLAN, micro_batch=8, keeps_groups=True)
    for part in full(cut(batch, plan, seed=2).slots):
        groups = [row // SIZE for row in rows_in(part, batch)]
        assert len(groups) % SIZE == 0
        assert all(len(set(groups[i : i + SIZE])) == 1 for i in range(0, len(groups), SIZE))


@pytest.mark.parametrize("micro_batch", [2, 4, 6, 8, 12, 24])
def test_a_run_on_a_gpu_is_cut_for_every_divisor_of_its_rows(micro_batch: int) -> None:
    config = resolve(
        preset="tiny-cpu",
        settings=[
            f"grpo.group_size={SIZE}",
            f"grpo.prompts_per_step={GROUPS}",
            f"grpo.max_prompt_tokens={PROMPT}",
            f"grpo.max_completion_tokens={COMPLETION}",
            f"memory.micro_batch={micro_batch}",
            "memory.checkpointing=none",
        ],
    ).config
    batch = rollout(dead_groups=0)
    batch["completion_mask"][:] = 1
    batch["prompt_mask"][:] = 1
    slots = cut(batch, batch_plan_of(config, Device("cuda", "bfloat16")), seed=0).slots
    assert len(slots) == ROWS // micro_batch
    assert sorted(row for part in full(slots) for row in rows_in(part, batch)) == list(range(ROWS))


def test_groups_stay_in_one_optimizer_step_and_the_seed_says_in_which() -> None:
    batch, plan = rollout(dead_groups=0), replace(PLAN, steps=2)

    def steps(seed: int) -> list[set[int]]:
        slots = cut(batch, plan, seed).slots
        half = len(slots) // 2
        return [
            {row // SIZE for part in full(side) for row in rows_in(part, batch)}
            for side in (slots[:half], slots[half:])
        ]

    first, second = steps(0)
    assert not first & second
    assert first | second == set(range(GROUPS))
    assert steps(0) == steps(0)
    assert len({frozenset(steps(seed)[0]) for seed in range(6)}) > 1


def test_unsloths_wider_log_probs_are_cut_by_what_both_sides_lose() -> None:
    batch = rollout(dead_groups=0)
    pad = int(PROMPT - batch["prompt_mask"].sum(1).min())
    batch["old_per_token_logps"] = torch.arange(COMPLETION + pad).expand(ROWS, -1).float()
    batch["max_left_pad"] = torch.full((ROWS, 1), pad)
    for part in full(cut(batch, PLAN, seed=0).slots):
        left = PROMPT - part["prompt_ids"].shape[1]
        assert int(part["max_left_pad"][0]) == pad - left
        assert part["old_per_token_logps"].shape[1] == part["completion_ids"].shape[1] + pad - left


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    config = resolve(
        preset="tiny-cpu", settings=["model.bits=16", "memory.checkpointing=none", "rollout.weights=merged"]
    ).config
    device = Device("cpu", "float32")
    prepare_process(config, device)
    policy = load_policy(config, device)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return policy


def trainer_of(policy: Any, out: Path, *settings: str) -> Any:
    config = resolve(
        preset="tiny-cpu",
        settings=[
            "model.bits=16",
            f"grpo.group_size={SIZE}",
            f"grpo.prompts_per_step={GROUPS}",
            f"grpo.max_prompt_tokens={PROMPT}",
            f"grpo.max_completion_tokens={COMPLETION}",
            "memory.micro_batch=6",
            "memory.checkpointing=none",
            "rollout.weights=merged",
            "rewards.think_format=0",
            *settings,
        ],
    ).config
    from datasets import Dataset

    if "ref" in policy.model.peft_config:  # TRL's frozen copy of the adapter, from a trainer before
        policy.model.delete_adapter("ref")
    setup = TrainerSetup(
        config=config,
        sampler=Sampler(policy, config),
        dataset=Dataset.from_list([{"prompt": "x", "example_id": "x"}]),
        reward_functions=[lambda completion_ids, **_: [0.0] * len(completion_ids)],
        prompt_tokens=lambda example_id: [10],
        out=out,
    )
    trainer = make_trainer(policy, setup)
    trainer.current_gradient_accumulation_steps = ROWS // 6
    return trainer


def gradient(trainer: Any, parts: list[Batch]) -> torch.Tensor:
    trainer.model.train()
    trainer.model.zero_grad()
    for part in parts:
        trainer.compute_loss(trainer.model, part).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad])


def trls_cut(batch: Batch) -> list[Batch]:
    from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

    return split_tensor_dict(shuffle_sequence_dict(batch), ROWS // 6)


def near(trainer: Any, batch: Batch) -> torch.Tensor:
    """Log-probs of another policy: the model's own, moved a little."""
    parts = [torch.cat((batch[f"prompt_{what}"], batch[f"completion_{what}"]), dim=1) for what in ("ids", "mask")]
    with torch.no_grad():
        own = trainer._get_per_token_logps_and_entropies(trainer.model, *parts, COMPLETION)[0]
    return own + 0.3 * torch.randn(own.shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    "settings",
    [
        ("grpo.loss=dapo",),
        ("grpo.loss=grpo",),
        ("grpo.loss=dr_grpo", "grpo.scale_rewards=none"),
        ("grpo.loss=dapo", "grpo.beta=0.1"),
        ("grpo.loss=grpo", "grpo.beta=0.1"),
        ("grpo.loss=dr_grpo", "grpo.scale_rewards=none", "grpo.beta=0.1"),
    ],
)
@pytest.mark.parametrize("dead_groups", [0, 2, GROUPS])
def test_the_gradient_of_a_step_is_that_of_trls_cut(
    policy: Any, tmp_path: Path, settings: tuple[str, ...], dead_groups: int
) -> None:
    trainer = trainer_of(policy, tmp_path, *settings)
    batch = rollout(dead_groups)
    if trainer.config.grpo.beta:
        batch["ref_per_token_logps"] = near(trainer, batch)
    expected = gradient(trainer, trls_cut(batch))
    ours = gradient(trainer, full(cut(batch, batch_plan_of(trainer.config, policy.device), seed=0).slots))
    torch.testing.assert_close(ours, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    assert (float(expected.abs().max()) > 0) == (dead_groups < GROUPS or bool(trainer.config.grpo.beta))


@pytest.mark.parametrize("shortest", [1, 2])
def test_reading_a_prompt_once_gives_its_rows_the_same_log_probs_and_gradient(
    policy: Any, tmp_path: Path, shortest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(policy, tmp_path)
    batch = rollout(dead_groups=0)
    batch["prompt_mask"][: SIZE * 2, : PROMPT - shortest] = 0
    assert "PrefixSharingMixin" in {base.__name__ for base in type(trainer).__mro__}
    shared = gradient(trainer, [batch])
    monkeypatch.delattr(PrefixSharingMixin, "_get_per_token_logps_and_entropies")
    separate = gradient(trainer, [batch])
    torch.testing.assert_close(shared, separate, atol=1e-5 * float(separate.abs().max()), rtol=0)


def test_bnpos_gradient_keeps_the_weight_of_the_dead_rows_tokens(policy: Any, tmp_path: Path) -> None:
    trainer = trainer_of(policy, tmp_path, "grpo.loss=bnpo")
    plan, batch = batch_plan_of(trainer.config, policy.device), rollout()
    all_rows = gradient(trainer, full(cut(batch, replace(plan, drops_dead_rows=False), seed=3).slots))
    ours = gradient(trainer, full(cut(batch, plan, seed=3).slots))
    torch.testing.assert_close(ours, all_rows, atol=1e-5 * float(all_rows.abs().max()), rtol=0)


def test_off_policy_steps_keep_their_old_log_probs_with_their_tokens(policy: Any, tmp_path: Path) -> None:
    trainer = trainer_of(policy, tmp_path, "grpo.loss=dapo", "grpo.epsilon=0.2")
    batch = rollout()
    batch["old_per_token_logps"] = near(trainer, batch)
    expected = gradient(trainer, trls_cut(batch))
    ours = gradient(trainer, full(cut(batch, batch_plan_of(trainer.config, policy.device), seed=0).slots))
    torch.testing.assert_close(ours, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_a_plan_whose_shared_prompts_did_not_fit_takes_fewer_groups_and_then_rows_with_a_prompt_each() -> None:
    shared = replace(PLAN, group_size=8, micro_batch=16, keeps_groups=True, max_prompt_tokens=200)
    group = shared.after_sharing()
    assert (group.rows_together, group.keeps_groups) == (8, True)
    rows = group.after_sharing()
    # A group of 8 shares 200 + 8 x 20 = 360 tokens: one row with its own prompt takes 220.
    assert (rows.rows_together, rows.keeps_groups) == (1, False)
    assert replace(shared, max_prompt_tokens=10).after_sharing().after_sharing().rows_together == 4
