import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.keys import REWARDS, fix_for_unknown, is_known
from lowmem_rl.config.trl_names import OPTIONS, OURS
from lowmem_rl.errors import ConfigError


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("num_generations", "grpo.group_size"),
        ("grpo.lr", "optimizer.learning_rate"),
        ("learning_rate", "optimizer.learning_rate"),
        ("max_completion_length", "grpo.max_completion_tokens"),
        ("rollout.max-new-tokens", "grpo.max_completion_tokens"),
        ("per_device_train_batch_size", "memory.micro_batch"),
        ("epsilon", "grpo.epsilon"),
        ("num_iterations", "grpo.passes_per_rollout"),
        ("beta", "grpo.beta"),
        ("actor_rollout_ref.actor.clip_ratio_high", "grpo.epsilon_high"),
        ("target_modules", "adapter.targets"),
        ("output_dir", "--out DIR"),
    ],
)
def test_the_name_of_another_library_leads_to_ours(theirs, ours) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(preset="tiny-cpu", settings=[f"{theirs}=1"])
    assert caught.value.hint == f"Did you mean {ours}?"


def test_every_name_leads_to_a_key_that_exists_and_hides_none() -> None:
    assert all(is_known(key) or key == REWARDS for keys in OURS.values() for key in keys)
    assert not any(is_known(name) for name in (*OURS, *OPTIONS))


def test_a_name_of_nobody_leads_nowhere() -> None:
    assert "Did you mean" not in fix_for_unknown("zzzz")
