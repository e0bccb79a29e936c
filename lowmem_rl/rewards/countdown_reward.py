"""Countdown: reach a target with given numbers, each used exactly once, by + - * / and brackets.

An example needs `extra["numbers"]` and `extra["target"]`.
"""

from fractions import Fraction

from lowmem_rl.example import Example
from lowmem_rl.rewards.answer_extraction import required_extra, stated_answer
from lowmem_rl.rewards.expressions import BadExpression, compute, has_power, numbers_in, parse
from lowmem_rl.rewards.reward import Reward

NEAR = 0.1
"""For the right numbers with a wrong result, as in TinyZero: the first signal for a base model that never succeeds."""


def score_countdown(completion: str, example: Example) -> float:
    """1 for an expression that uses every number once and reaches the target, 0.1 if it misses, else 0.

    `expression = target` counts as the expression; `= anything else` is a miss.
    """
    numbers, target = required_extra(example, "numbers"), Fraction(required_extra(example, "target"))
    expression, equals, result = (stated_answer(completion) or "").partition("=")
    try:
        tree = parse(expression)
        if has_power(tree) or sorted(numbers_in(tree)) != sorted(map(Fraction, numbers)):
            return 0.0
        values = {compute(tree), *([compute(parse(result))] if equals else [])}
    except BadExpression:
        return 0.0
    return 1.0 if values == {target} else NEAR


COUNTDOWN = Reward("countdown", score_countdown)
