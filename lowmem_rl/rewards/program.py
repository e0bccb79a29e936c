"""Program synthesis: is the expression the rule of a sequence, also for values that were not shown.

An example needs `extra["points"]`, the pairs (n, f(n)) in the prompt, and `extra["unseen"]`, pairs that are not in it:
a table of the shown values is not a rule.
"""

from fractions import Fraction

from lowmem_rl.example import Example
from lowmem_rl.rewards.answer_extraction import required_extra, stated_answer
from lowmem_rl.rewards.expressions import BadExpression, compute, parse
from lowmem_rl.rewards.reward import Reward


def score_program(completion: str, example: Example) -> float:
    """1 if the expression in n gives every shown and every unseen value, else 0; it may start with `f(n) =`."""
    expression = (stated_answer(completion) or "").rpartition("=")[2]
    points = [*required_extra(example, "points"), *required_extra(example, "unseen")]
    try:
        tree = parse(expression)
        return float(all(compute(tree, {"n": Fraction(n)}) == value for n, value in points))
    except BadExpression:
        return 0.0


PROGRAM_SYNTHESIS = Reward("program_synthesis", score_program)
