"""What the benchmark of a step refuses before anything is loaded."""

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.errors import ConfigError
from lowmem_rl_bench.step.replays import Protocol
from lowmem_rl_bench.step.run_bench import measure


@pytest.mark.parametrize("setting", ["trainable.method=full", "trainable.schedule=lisa"])
def test_what_plain_trl_cannot_train_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="compares adapters that learn from start to end"):
        measure(resolve(preset="tiny-cpu", settings=[setting]), Protocol())


def test_fewer_rows_than_an_arm_trains_on_are_refused() -> None:
    few = resolve(preset="tiny-cpu", settings=["grpo.prompts_per_step=1", "grpo.group_size=4", "memory.micro_batch=4"])
    with pytest.raises(ConfigError, match="4 completions, fewer than the micro-batch of 8 that trl trains on"):
        measure(few, Protocol())
