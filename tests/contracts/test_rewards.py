"""Known broken rewards are caught, each by its own fault; none of ours is flagged; the committed table says so."""

import json
from pathlib import Path

import pytest

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.rewards.adversarial_cases import PREFILL, RewardCase, cases_for
from lowmem_rl.rewards.model_reward import ModelAccess, ModelReward
from lowmem_rl.rewards.reward_check import check_reward, check_rewards
from lowmem_rl.rewards.reward_registry import REWARDS, load_reward, load_reward_set
from lowmem_rl.tasks.task import Selection
from lowmem_rl.tasks.task_registry import load_task
from lowmem_rl_bench.broken_rewards import check_zoo

RECORD = Path(__file__).parents[2] / "benchmarks" / "records" / "reward-zoo-2026-11-30.json"

FAULTS = {
    "any_candidate": "hedge-paid",
    "box_read_to_the_first_brace": "unpaid",
    "boxes_compared_to_the_first_brace": "blind",
    "brackets_ignored": "blind",
    "column_that_is_not_there": "constant",
    "countdown_by_its_characters": "blind",
    "error_that_was_never_imported": "fails",
    "every_error_is_a_zero": "constant",
    "no_time_limit": "hangs",
    "one_of_several_answers": "blind",
    "soft_format": "constant",
    "strict_format": "constant",
    "tags_without_the_box_inside": "constant",
    "think_format_of_the_sampled_part": "constant",
    "thoughts_read_for_the_answer": "blind",
    "time_limit_by_signal": "thread-bound",
    "tolerance_and_percentages": "blind",
    "unparsable_gold_paid": "blind",
    "whole_text_without_a_box": "worthless-paid",
}


def test_every_reward_of_the_zoo_is_caught_by_its_own_fault() -> None:
    assert {broken.reward.name: [f.fault for f in found] for broken, found in check_zoo()} == {
        name: [fault] for name, fault in FAULTS.items()
    }


def test_every_reward_of_the_zoo_tells_where_it_was_seen() -> None:
    assert all(broken.story and broken.source for broken, _ in check_zoo())


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("prefill", ["", "<think>", PREFILL])
def test_none_of_ours_is_flagged(name: str, prefill: str) -> None:
    reward = load_reward(name)
    if isinstance(reward, ModelReward):
        model = ModelAccess(lambda text: len(text) // 4, 256, lambda rows: [1.0 + len(row.lead) % 3 for row in rows])
        reward = reward.bind(model)
    assert check_reward(reward, cases_for(name), prefill) == []


@pytest.mark.parametrize(
    ("task", "weights"),
    [
        ("arithmetic", {"boxed_answer": 1.0, "think_format": 0.2}),
        ("countdown", {"countdown": 1.0, "answer_tags": 0.2, "repetition": 0.2}),
        ("matrix_inverse", {"boxed_answer": 1.0, "matrix_rows": 0.5, "matrix_l1": 0.5}),
        ("rref", {"boxed_answer": 1.0, "matrix_frobenius": 1.0}),
        ("program_synthesis", {"program_synthesis": 1.0, "think_format": 0.2}),
    ],
)
def test_the_rewards_of_our_tasks_pass_on_them(task: str, weights: dict[str, float]) -> None:
    convention = "r1_zero" if "answer_tags" in weights else "think_boxed"
    made = load_task(TaskConfig(name=task, prompt=convention))
    cases = [RewardCase(e, made.gold_completion(e)) for e in made.examples(Selection("train", limit=24))]
    for prefill in ("", PREFILL):
        assert check_rewards(load_reward_set(weights), cases, prefill) == []


def test_the_committed_table_is_what_the_command_prints(cli_here) -> None:
    printed = json.loads(cli_here("rewards", "check", "--zoo", "--json").stdout)
    recorded = json.loads(RECORD.read_text())
    assert printed | {"date": None} == recorded | {"date": None}
    assert recorded["summary"] == {"broken": len(FAULTS), "caught": len(FAULTS), "ours_flagged": 0}
