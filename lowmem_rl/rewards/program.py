"""Program synthesis: is the expression the rule behind a sequence, also where it was not shown.

An example carries `extra["points"]`, the pairs (n, f(n)) that the prompt shows, and `extra["unseen"]`,
pairs that it does not: a table of what was shown is no rule.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction

from lowmem_rl.example import Example
from lowmem_rl.rewards.answer_extraction import fact, stated_answer
from lowmem_rl.rewards.expressions import BadExpression, compute, parse
from lowmem_rl.rewards.reward import Reward


def score_program(completion: str, example: Example) -> float:
    """1 if the expression in n gives every shown and every unseen value, else 0; `f(n) =` may stand before it."""
    expression = (stated_answer(completion) or "").rpartition("=")[2]
    return float(_fits(expression, [*fact(example, "points"), *fact(example, "unseen")]))


def _fits(expression: str, points: Iterable[Sequence[int]]) -> bool:
    try:
        tree = parse(expression)
        return all(compute(tree, {"n": Fraction(n)}) == value for n, value in points)
    except BadExpression:
        return False


PROGRAM_SYNTHESIS = Reward("program_synthesis", score_program)
