r"""Tells a number from what is left to compute: `14 + 6` is not the answer if the gold answer is 20.

A model that is paid for it learns to repeat the question. One power, factorial, root or function counts as a number
(`10^6`, `5!`, `\cos 60^\circ`), and so does a quotient in any terms: 120/6 is 20, for rationals are compared exactly.
"""

import re

from lowmem_rl.verify.number_text import as_number

_SIGNS = frozenset("+-*/\\([{")
_QUOTES = re.compile("[\"'“”‘’′″]")
_POWER_OF_TEN = re.compile(r"\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*[-+]?\d+\s*\}|[-+]?\d+)\s*$")
_EXPONENT = re.compile(r"\^\s*(?:\{[^{}]*\}|\([^()]*\)|[-+]?\w)")
_PLAIN = re.compile(
    r"(?:[\d.,\s()\[\]{}|+\-*/!]|\\(?:times|cdot|div|ast|over|[dt]?frac|sqrt|left|right|[lr]floor|[lr]ceil)(?![A-Za-z]))+",
    re.ASCII,
)
"""Numbers, brackets and operations; with a variable or another function it is for algebra."""
_OPERATION = re.compile(
    r"(?:[\d.)\]}!]|(?<=[\d)])\|)\s*(?:[-+*]|\\(?:times|cdot|ast)(?![A-Za-z]))\s*(?:[-+]\s*)*"
    r"[\d.(\[{|\\]"  # 14 + 6
    r"|[\d)\]]\s*[(\[]\s*[-+]?[\d.]",  # 2(10)
    re.ASCII,
)


def is_left_to_do(given: str, gold: str = "0") -> bool:
    """Returns whether an answer in normal form is a computation though the gold answer is a number."""
    if _SIGNS.isdisjoint(given) or as_number(gold.strip("()[]{} ")) is None:
        return False
    text = _EXPONENT.sub("", _POWER_OF_TEN.sub("", _QUOTES.sub("", given)))
    return bool(_PLAIN.fullmatch(text) and _OPERATION.search(text))
