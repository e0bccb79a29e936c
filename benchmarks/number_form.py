"""A control reward: a completion has the form of an answer, right or wrong. Its name is `form`."""

import re

from lowmem_rl import Example, Reward

_ENDS_IN_NUMBER = re.compile(r"-?\d+\.?\s*$")


def pay(completion: str, example: Example) -> float:
    """1 if the completion ends in a number, else 0."""
    return float(_ENDS_IN_NUMBER.search(completion) is not None)


# `cost`: it pays a wrong answer as much as the right one.
form = Reward("form", pay, kind="cost")
