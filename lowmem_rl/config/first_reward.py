"""What to do if a model never earns a reward: pre-flight and audit give the same advice.

A larger group alone is not among it: at a pass rate of 0 no group holds a right answer, at 0.01 one group of eight in
thirteen does.
"""

from collections.abc import Collection

NEARLY_NEVER_RIGHT = 0.01
"""Pass rate up to which a model counts as never right: none of 300 completions leaves at most this at 95 %."""
_STRICT, _LENIENT = "boxed_answer", "any_answer"


def ways_to_a_first_reward(rewards: Collection[str]) -> str:
    """Returns the ways in order of their cost, for a run that is paid by `rewards`."""
    is_strict = _STRICT in rewards and _LENIENT not in rewards
    ways = [
        "an easier level (task.levels) or task",
        *([f"the lenient reward (--reward {_LENIENT}=1)"] if is_strict else []),
        "`lowmem-rl warmup` on gold completions, then train --from it",
        "a larger model, or worked examples in the prompt",
    ]
    return f"in order of cost: {'; '.join(ways)}"
