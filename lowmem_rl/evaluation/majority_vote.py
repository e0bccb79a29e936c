"""Which answers are the same one when the majority is looked for: the same number, else the same words."""

from fractions import Fraction

from lowmem_rl.verify.normalize import normal_form
from lowmem_rl.verify.values import value_of


def vote_of(answer: str | None) -> str | None:
    """Returns what equal answers share: `1/2` and `0.5` vote together, `5 apples` and `5 pears` do not.

    Symbolic algebra is not asked: two forms of one expression vote apart, which can only lower the majority's share.
    """
    normal = None if answer is None else normal_form(answer)
    if normal is None:
        return None
    value = value_of(normal.text)
    text = str(value) if isinstance(value, Fraction) else normal.text.casefold()
    return " ".join(filter(None, [text, *sorted(normal.signs), normal.unit]))
