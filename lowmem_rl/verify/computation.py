r"""Tells a number from what is left to compute: neither `14 + 6` nor `120/6` is the answer if the gold answer is 20.

A model that is paid for them learns to repeat the question. One power, factorial, root or function counts as a number
(`10^6`, `5!`, `\cos 60^\circ`), and so does a fraction: in any form of a gold fraction, else in lowest terms.
"""

import re
from math import gcd

from lowmem_rl.verify.number_text import as_number

_SIGNS = frozenset("+-*/\\([{")
_QUOTES = re.compile("[\"'“”‘’′″]")
_POWER_OF_TEN = re.compile(r"\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*[-+]?\d+\s*\}|[-+]?\d+)\s*$")
_EXPONENT = re.compile(r"\^\s*(?:\{[^{}]*\}|\([^()]*\)|[-+]?\w)")
_OPERATION = re.compile(
    r"(?:[\d.)\]}!]|(?<=[\d)])\|)\s*(?:[-+*]|\\(?:times|cdot|ast)(?![A-Za-z]))\s*(?:[-+]\s*)*"
    r"(?:[\d.(\[{|]|\\(?!pi(?![A-Za-z])))"  # 14 + 6, but not 2 * \pi in a cosine
    r"|(?:(?<![_^])\d|[)\]])\s*[(\[]\s*[-+]?[\d.]",  # 2(10), but not \log_2(8)
    re.ASCII,
)
_NUMBER = r"[-+]?\d[\d.,]*|[-+]?\.\d+"
_QUOTIENT = re.compile(
    rf"({_NUMBER})[)\]}}\s]*(?:/|\\(?:div|over)(?![A-Za-z]))[(\[{{\s]*({_NUMBER})"
    rf"|\\[dt]?frac\s*(?:\{{\s*({_NUMBER})\s*\}}|(\d))\s*(?:\{{\s*({_NUMBER})\s*\}}|(\d))",
    re.ASCII,
)
_WRITTEN_AS_QUOTIENT = re.compile(r"/|\\[dt]?frac|\\(?:div|over)(?![A-Za-z])")


def is_left_to_do(given: str, gold: str = "0") -> bool:
    """Returns whether an answer in normal form is a computation though the gold answer is a number."""
    if _SIGNS.isdisjoint(given) or as_number(gold.strip("()[]{} ")) is None:
        return False
    text = _EXPONENT.sub("", _POWER_OF_TEN.sub("", _QUOTES.sub("", given)))
    if _OPERATION.search(text):
        return True
    return not _WRITTEN_AS_QUOTIENT.search(gold) and not _in_lowest_terms(text)


def _in_lowest_terms(text: str) -> bool:
    """Returns whether a text has at most one quotient, of whole numbers without a common factor."""
    quotients = _QUOTIENT.findall(text)
    if not quotients:
        return True
    numbers = [number.lstrip("+-") for number in quotients[0] if number]
    return len(quotients) == 1 and all(map(str.isdecimal, numbers)) and gcd(*map(int, numbers)) == 1 < int(numbers[1])
