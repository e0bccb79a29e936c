"""Examples -> the rows that TRL draws prompts from."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.policy import Policy
from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example

Prompt = dict[str, Any]
"""A row as TRL (prompt) and our rewards (example_id) read it: both hold the example's id. The data loader walks through
every list of a row, and passes each row on once a micro-batch."""


def prompts_per_rollout(config: RunConfig) -> int:
    """Returns the prompts of one round of sampling."""
    return config.grpo.prompts_per_step * config.grpo.steps_per_rollout


def prompts_needed(config: RunConfig) -> int:
    """Returns the most prompts that a run draws: whole rollouts, each example once."""
    rollouts = -(-config.grpo.steps // config.grpo.steps_per_rollout)
    return rollouts * prompts_per_rollout(config)


def within_prompt_limit(policy: Policy, examples: Sequence[Example], max_prompt_tokens: int) -> list[Example]:
    """Returns the examples whose prompt is within the limit. A longer prompt is left out, never cut."""
    return [example for example in examples if len(policy.tokenize(example.prompt)) <= max_prompt_tokens]


def check_enough(examples: Sequence[Example], config: RunConfig, *, overlong: int) -> None:
    """Raises `TaskError` if the usable examples do not fill one round of sampling."""
    needed = prompts_per_rollout(config)
    if len(examples) >= needed:
        return
    limit = f"; {overlong} more have over {config.grpo.max_prompt_tokens} prompt tokens" if overlong else ""
    raise TaskError(
        f"Task {config.task.name!r} gives {len(examples)} examples{limit}. One rollout takes {needed} prompts.",
        hint=f"Lower grpo.prompts_per_step{', raise grpo.max_prompt_tokens' if overlong else ''}, or give more data.",
    )


def tokens_of(policy: Policy, examples: Mapping[str, Example]) -> Callable[[str], list[int]]:
    """Returns a function from an example's id to the token ids of its rendered prompt; each is rendered once."""
    return cache(lambda example_id: policy.tokenize(examples[example_id].prompt))


def to_prompt(example: Example) -> Prompt:
    """Returns one row, a new one each time: TRL may write into it."""
    return {"prompt": example.id, "example_id": example.id}


def to_dataset(examples: Sequence[Example]) -> Any:
    """Returns a `datasets.Dataset` of such rows."""
    from datasets import Dataset

    return Dataset.from_list([to_prompt(example) for example in examples])
