r"""Are two congruences the same: `x \equiv 3 \pmod{7}` is also `x = 10 (mod 7)` and `3 \bmod 7`."""

import re
from collections.abc import Iterable
from fractions import Fraction

from lowmem_rl.verify.values import Bracketed, Value, same_value, value_of

_MODULUS = re.compile(r"(.+?)[\s,]*\(?\s*\\?[pb]?mod(?:ulo)?(?![A-Za-z])\s*(\{?)\s*([^(){}]+?)\s*\}?\s*\)?", re.DOTALL)
_CONGRUENT = re.compile(r"\\equiv(?![A-Za-z])|=")


def same_congruence(given: str, gold: str) -> bool | None:
    """Returns whether two texts in normal form are one congruence; None if one is none. The name may be left out."""
    if "mod" not in given or "mod" not in gold:
        return None
    one, other = _MODULUS.fullmatch(given), _MODULUS.fullmatch(gold)
    if one is None or other is None:
        return None
    (name, residue), (gold_name, gold_residue) = _sides(one[1]), _sides(other[1])
    modulus, gold_modulus = value_of(one[3]), value_of(other[3])
    if (name and gold_name and name != gold_name) or modulus != gold_modulus:
        return False if isinstance(modulus, Fraction) and isinstance(gold_modulus, Fraction) else None
    if not isinstance(modulus, Fraction) or not modulus:
        return same_value(value_of(residue), value_of(gold_residue))
    residues = [_residues(value_of(text), modulus) for text in (residue, gold_residue)]
    return None if None in residues else residues[0] == residues[1]


def _sides(text: str) -> tuple[str, str]:
    """Returns the name, or "", and the residue."""
    left, *rest = (side.strip() for side in _CONGRUENT.split(text))
    return (left, rest[-1]) if rest else ("", left)


def _residues(value: Value, modulus: Fraction) -> set[Fraction] | None:
    """Returns one residue, or those of a list; None for what is not numbers."""
    values: Iterable[Value] = value.items if isinstance(value, Bracketed) and value.brackets in {"", "{}"} else [value]
    numbers = [one for one in values if isinstance(one, Fraction)]
    return {number % modulus for number in numbers} if len(numbers) == len(list(values)) else None
