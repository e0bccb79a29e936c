"""Held-out problems of sets without a test split: chosen by a hash of the problem itself.

The same problem is in the same split in every process and under every seed, even if it occurs twice in the data or
differs only in spaces and capitals: training never sees it.
"""

from hashlib import blake2b


def is_held_out(text: str, share: float) -> bool:
    """Returns whether a problem belongs to the `share` that is kept for the test split."""
    return place_of(text) < share


def place_of(text: str) -> float:
    """Returns a pseudo-random number in [0, 1) that depends only on the words of the text."""
    words = " ".join(text.casefold().split())
    digest = blake2b(words.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest) / 2**32
