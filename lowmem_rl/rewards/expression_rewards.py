"""Rewards for answers that are expressions: countdown and program synthesis.

Countdown: reach `extra["target"]` with `extra["numbers"]`, each used exactly once, by + - * / and brackets. Program
synthesis: find the rule of a sequence from `extra["points"]`, the pairs (n, f(n)) in the prompt, that also holds for
`extra["unseen"]`: a table of the shown values is not a rule.
"""

import re
from fractions import Fraction

from lowmem_rl.example import Example
from lowmem_rl.rewards.answer_extraction import required_extra, stated_answer
from lowmem_rl.rewards.expressions import BadExpression, compute, has_power, numbers_in, parse
from lowmem_rl.rewards.reward import Reward

_NEAR = 0.1
"""For the right numbers with a wrong result, as in TinyZero: the first signal for a base model that never succeeds."""

_LETTER_X = re.compile(r"(?<=[\d)}])\s*[xX]\s*(?=[\d({\\])")
"""As a times sign: the numbers are all that a countdown's expression holds."""


def score_countdown(completion: str, example: Example) -> float:
    """1 for an expression that uses every number once and reaches the target, 0.1 if it misses, else 0.

    `expression = target` and `target = expression` count as the expression; `= anything else` is a miss.
    """
    numbers, target = required_extra(example, "numbers"), Fraction(required_extra(example, "target"))
    wanted = sorted(map(Fraction, numbers))
    sides = _LETTER_X.sub("*", stated_answer(completion) or "").split("=")
    try:
        trees = [parse(side) for side in sides]
        if not any(sorted(numbers_in(tree)) == wanted and not has_power(tree) for tree in trees):
            return 0.0
        values = set(map(compute, trees))
    except BadExpression:
        return 0.0
    return 1.0 if values == {target} else _NEAR


def score_program(completion: str, example: Example) -> float:
    """1 if the expression in n gives every shown and every unseen value, else 0; it may start with `f(n) =`."""
    expression = (stated_answer(completion) or "").rpartition("=")[2]
    points = [*required_extra(example, "points"), *required_extra(example, "unseen")]
    try:
        tree = parse(expression)
        return float(all(compute(tree, {"n": Fraction(n)}) == value for n, value in points))
    except BadExpression:
        return 0.0


COUNTDOWN = Reward("countdown", score_countdown)
PROGRAM_SYNTHESIS = Reward("program_synthesis", score_program)
