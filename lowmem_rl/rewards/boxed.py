"""Is the answer right: strictly, in the last box, or leniently, in any common form."""

from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import Reward
from lowmem_rl.verify import verify
from lowmem_rl.verify.extract import lenient_answer, strict_answer


def score_boxed(completion: str, example: Example) -> float:
    """1 if the last balanced box after the thoughts holds the answer, else 0."""
    given = strict_answer(completion)
    return float(given is not None and any(verify(given, gold) for gold in example.golds))


def score_any(completion: str, example: Example) -> float:
    """1 if the text after the thoughts gives the answer in any common form, else 0."""
    given = lenient_answer(completion)
    return float(given is not None and any(verify(given, gold) for gold in example.golds))


BOXED_ANSWER = Reward("boxed_answer", score_boxed)
ANY_ANSWER = Reward("any_answer", score_any)
