r"""Tells a computation from a number: `14 + 6` is not the answer if the gold answer is 20.

A model that is paid for it learns to repeat the question. A power, a factorial, a root or a function alone counts as a
number: `10^6`, `5!`, `\cos 60^\circ`.
"""

import re

from lowmem_rl.verify.number_text import as_number

_PLAIN = re.compile(r"(?:[\d.,\s()\[\]{}|+\-*/!^]|\\(?:times|cdot|div|ast|frac)(?![A-Za-z]))+", re.ASCII)
"""Numbers, brackets and operations alone."""
_OPERATION = re.compile(
    r"(?:[\d.)\]}!]|(?<=[\d)])\|)\s*(?:[-+*/]|\\(?:times|cdot|div|ast)(?![A-Za-z]))\s*[-+]?\s*[\d.(\[{|\\]"  # 14 + 6
    r"|[\d)\]]\s*[(\[]",  # 2(10)
    re.ASCII,
)
_QUOTIENT = re.compile(r"/|\\frac")
_LEAST = 3
"""Characters of the shortest computation."""


def is_computation(text: str) -> bool:
    """Returns whether a text in normal form has plain numbers to add, subtract, multiply or divide; not a fraction."""
    if len(text) < _LEAST or not _PLAIN.fullmatch(text) or not _OPERATION.search(text):
        return False
    return as_number(_bare(text)) is None


def is_division(given: str, gold: str) -> bool:
    """Returns whether a number is written as a quotient though the gold number is not: `120/6` for 20.

    Of a gold fraction any form counts: 2/4 is 1/2.
    """
    if not (_QUOTIENT.search(given) and gold.lstrip("+-").isdecimal()):
        return False
    return as_number(_bare(given)) is not None


def _bare(text: str) -> str:
    """Returns a text without its sign, and the brackets around it."""
    text = text.lstrip("+- ")
    return text[1:-1].strip() if text[0] == "(" and text[-1] == ")" else text
