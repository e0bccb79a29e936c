"""verl's own code, without a card, on what `scale-out --to verl` writes. `scripts/setup-verl` makes its environment."""

import pytest
import torch

from benchmarks.verl.answers import HOSTILE_NAME, LOSSES, PREFILLS, Asked, ask_verl, verl_python
from benchmarks.verl.asked import TYPOS, WRONG
from benchmarks.verl.comparisons import advantage_error, equal_scores, gradient_error, own_prompts, own_scores
from benchmarks.verl.trl_loss import off_policy_batch

pytestmark = [
    pytest.mark.verl,
    pytest.mark.slow,
    pytest.mark.skipif(verl_python() is None, reason="verl's environment is not here: scripts/setup-verl makes it"),
]


@pytest.fixture(scope="module")
def batch() -> dict:
    return off_policy_batch()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, batch: dict) -> Asked:
    python = verl_python()
    assert python is not None
    return ask_verl(python, tmp_path_factory.mktemp("verl"), batch)


def test_hydra_and_every_dataclass_take_the_overrides(asked: Asked):
    made = ["AlgoConfig", "FSDPActorConfig", "RolloutConfig", "HFModelConfig", "FSDPOptimizerConfig"]
    assert {tuple(asked.answers[f"config/{name}"]["dataclasses"]) for name in asked.folders} == {tuple(made)}


def test_a_hostile_name_arrives_as_it_is(asked: Asked):
    values, folder = asked.answers[f"config/{HOSTILE_NAME}"]["values"], asked.folders[HOSTILE_NAME]
    assert values["actor_rollout_ref.model.path"] == str(folder.parent / "model" / HOSTILE_NAME)
    assert values["data.train_files"] == str(folder / "data" / "train.parquet")
    assert values["reward.custom_reward_function.path"] == str(folder / "reward.py")
    assert values["trainer.experiment_name"] == "it-s-touch-owned-touch-owned-a-b-c-x-y-"
    pattern = values["actor_rollout_ref.model.target_modules"]
    assert pattern == r".*\.layers\.(2)\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    assert not list(folder.parent.rglob("owned"))


def test_the_run_is_counted_in_verls_units(asked: Asked):
    values = asked.answers[f"config/{HOSTILE_NAME}"]["values"]
    assert values["data.train_batch_size"] == 16
    assert values["actor_rollout_ref.actor.ppo_mini_batch_size"] == 8
    assert values["trainer.total_training_steps"] == 4
    assert values["trainer.test_freq"] == 4
    assert values["actor_rollout_ref.rollout.top_k"] == 20
    assert values["actor_rollout_ref.actor.clip_ratio_c"] == 1e9


def test_misspelt_keys_and_wrong_values_are_refused(asked: Asked):
    assert asked.answers["refusals"] == {"keys": [*TYPOS], "values": [*WRONG]}


@pytest.mark.parametrize("name", PREFILLS)
def test_the_reward_manager_scores_as_our_rewards_do(asked: Asked, name: str):
    expected = own_scores(asked, name)
    assert len(expected) == 100
    assert len({one.reward for one in expected}) >= 3
    assert equal_scores(asked, name) == 100


@pytest.mark.parametrize("name", PREFILLS)
def test_the_data_set_renders_to_our_token_ids(asked: Asked, name: str):
    assert asked.answers[f"prompts/{name}"] == own_prompts(asked, name)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("processes", [1, 2])
def test_the_gradient_is_trls(asked: Asked, batch: dict, name: str, processes: int):
    assert gradient_error(asked, batch, name, processes) < 1e-6


def test_the_dual_clip_of_verls_default_would_be_another_gradient(batch: dict):
    """What `clip_ratio_c` is written for: ratios above 3 with negative advantages are in the batch."""
    new, old, advantages = (torch.tensor(batch[name]) for name in ("log_probs", "old", "advantages"))
    is_cut = ((new - old).exp() > 3) & (advantages[:, None] < 0) & (torch.tensor(batch["mask"]) > 0)
    assert int(is_cut.sum()) > 0


@pytest.mark.parametrize(("name", "most"), [("dapo", 3e-4), ("dr_grpo", 1e-12)])
def test_advantages_differ_by_no_more_than_the_mapping_says(asked: Asked, batch: dict, name: str, most: float):
    assert advantage_error(asked, batch, name) < most
