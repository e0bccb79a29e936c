"""A reward without information, for control runs: what improves under it was not taught.

On some models random rewards alone raise the score (arXiv 2506.10947), so a gain counts only beyond this control.
"""

from hashlib import blake2b

from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import Reward


def score_random(completion: str, example: Example) -> float:
    """0 or 1 by a fair coin that is a hash of the text: without state, so a resumed run repeats it."""
    digest = blake2b(f"{example.id}\0{completion}".encode("utf-8", "surrogatepass"), digest_size=1)
    return float(digest.digest()[0] & 1)


RANDOM = Reward("random", score_random, kind="control")
