"""Cut by prompt, a rollout's rows keep the weight in the step that they have in the cut of training."""

from dataclasses import replace
from typing import Any

import pytest

from lowmem_rl.grpo.micro_batches import BatchPlan, cut, cut_by_prompt

GROUP, ROWS, PROMPT, COMPLETION = 4, 16, 6, 8


def plan(loss: str, **other: Any) -> BatchPlan:
    found = BatchPlan(
        group_size=GROUP,
        micro_batch=8,
        steps=1,
        loss=loss,
        drops_dead_rows=True,
        keeps_groups=False,
        shares_prompts=False,
        max_prompt_tokens=PROMPT,
        max_completion_tokens=COMPLETION,
    )
    return replace(found, **other)


def rollout() -> Any:
    """Four groups, the second of them dead, the third with two rows that have no advantage."""
    import torch

    lengths = torch.arange(ROWS) % COMPLETION + 1
    mask = (torch.arange(COMPLETION) < lengths[:, None]).long()
    advantages = torch.arange(1.0, ROWS + 1) - 8.5
    advantages[4:8] = 0
    advantages[8:10] = 0
    numbers = torch.arange(ROWS)
    return {
        "prompt_ids": (numbers // GROUP)[:, None].expand(ROWS, PROMPT) + 1,
        "prompt_mask": torch.ones(ROWS, PROMPT, dtype=torch.long),
        "completion_ids": numbers[:, None].expand(ROWS, COMPLETION) * mask,
        "completion_mask": mask,
        "advantages": advantages,
        "num_items_in_batch": mask.sum(),
    }


def weights(batches: Any, loss: str) -> dict[int, float]:
    """The factor on the sum (grpo: the mean) of a row's token losses in the step, without TRL's constant one."""
    found = {}
    for batch in batches:
        tokens, rows = int(batch["completion_mask"].sum()), len(batch["advantages"])
        over = {"dapo": 1, "bnpo": tokens, "grpo": rows, "dr_grpo": rows}[loss]
        for ids, advantage in zip(batch["completion_ids"], batch["advantages"].tolist(), strict=True):
            found[int(ids[0])] = advantage / over
    return found


@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo"])
@pytest.mark.parametrize("cuts", [1, 2, 8])
def test_each_row_keeps_its_weight(loss: str, cuts: int) -> None:
    own = plan(loss, cuts_each_into=cuts)
    expected = weights(filter(None, cut(rollout(), own, seed=0).slots), loss)
    prompts = list(cut_by_prompt(rollout(), own))
    assert weights((batch for parts in prompts for batch in parts), loss) == pytest.approx(expected)
    for parts in prompts:
        assert len({int(row[-1]) for batch in parts for row in batch["prompt_ids"]}) == 1
    assert [sum(len(batch["advantages"]) for batch in parts) for parts in prompts] == [4, 2, 4]


def test_bnpo_divides_by_the_tokens_of_the_step() -> None:
    found = weights((batch for parts in cut_by_prompt(rollout(), plan("bnpo")) for batch in parts), "bnpo")
    accumulated, tokens = ROWS / 8, int(rollout()["completion_mask"].sum())
    advantages = rollout()["advantages"].tolist()
    assert found == pytest.approx({row: advantages[row] * accumulated / tokens for row in found})


def test_a_dead_rollout_has_no_prompts() -> None:
    batch = rollout()
    assert list(cut_by_prompt(batch | {"advantages": 0 * batch["advantages"]}, plan("dapo"))) == []
