"""A reward of your own: a function of one completion and its example.

    lowmem-rl train --reward examples/custom_reward.py:short_and_right=1.0

`completion` is the assistant's whole turn with its think block; return a number, or None to
leave this completion out. A plain function is enough; `Reward` adds what `rewards check` needs.
Functions for TRL or verl work as they are: see trl_rewards.py.
Run this file alone to see what it pays.
"""

from lowmem_rl import Example, Reward
from lowmem_rl.rewards.boxed import score_boxed

FREE_CHARACTERS = 60


def pay(completion: str, example: Example) -> float:
    """1 for a right answer within 60 characters, less the longer it gets, 0 for a wrong one."""
    extra = max(0, len(completion) - FREE_CHARACTERS)
    return score_boxed(completion, example) / (1 + extra / FREE_CHARACTERS)


# A cost: a right answer can lose reward. A merit must pay the perfect completion most, even if it is long.
short_and_right = Reward("short_and_right", pay, kind="cost")


if __name__ == "__main__":
    example = Example(id="demo", prompt=({"role": "user", "content": "What is 6 * 7?"},), answer="42")
    for completion in (
        "<think></think>\\boxed{42}",
        f"<think>{'let me see, ' * 10}6*7=42</think>\\boxed{{42}}",
        "<think></think>\\boxed{41}",
    ):
        print(f"{pay(completion, example):.2f}  {completion}")
