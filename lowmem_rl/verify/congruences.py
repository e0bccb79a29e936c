r"""Are two congruences the same: `x \equiv 3 \pmod{7}` is also `x = 10 (mod 7)`, `3 \bmod 7` and `x \bmod 7 = 3`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from lowmem_rl.verify.values import Bracketed, Value, same_value, value_of

_MOD = r"[\s,]*\(?\s*\\?[pb]?mod(?:ulo)?(?![A-Za-z])\s*\{?\s*([^(){}=,]+?)\s*\}?\s*\)?"
_CONGRUENCE = re.compile(rf"(?:([^=,]+?)\s*(?:=|\\equiv(?![A-Za-z]))\s*)?([^=]+?){_MOD}", re.DOTALL)
_REMAINDER = re.compile(rf"([^=,]+?){_MOD}\s*=\s*([^=]+)", re.DOTALL)
_AGAIN = re.compile(r"(?<=[)}\d])\s*,\s*(?=[^,]*(?:=|\\equiv)[^,]*mod)")


@dataclass(frozen=True, slots=True)
class _Congruence:
    """Names, or "" if it is left out, that are congruent to one of some residues."""

    name: str
    modulus: Value
    residues: tuple[Value, ...]


def same_congruence(given: str, gold: str) -> bool | None:
    """Returns whether two texts in normal form are one congruence; None if one is none. The name may be left out."""
    if "mod" not in given or "mod" not in gold:
        return None
    one, other = _read(given), _read(gold)
    if one is None or other is None or (one.name and other.name and one.name != other.name):
        return None if one is None or other is None else False
    modulus = one.modulus
    if not isinstance(modulus, Fraction) or not isinstance(other.modulus, Fraction) or not modulus:
        return same_value(modulus, other.modulus) and same_value(one.residues[0], other.residues[0])
    residues = [_reduced(congruence.residues, modulus) for congruence in (one, other)]
    return None if None in residues else modulus == other.modulus and residues[0] == residues[1]


def _read(text: str) -> _Congruence | None:
    """Reads one congruence, or several that differ in their residues alone."""
    found = [_read_one(part) for part in _AGAIN.split(text)]
    read = [one for one in found if one is not None]
    if len(read) < len(found) or len({(one.name, one.modulus) for one in read}) > 1:
        return None
    return replace(read[0], residues=tuple(residue for one in read for residue in one.residues))


def _read_one(text: str) -> _Congruence | None:
    if match := _REMAINDER.fullmatch(text):
        name, modulus, residue = match.groups()
    elif match := _CONGRUENCE.fullmatch(text):
        name, residue, modulus = match.groups("")
    else:
        return None
    value = value_of(residue.strip())
    values = value.items if isinstance(value, Bracketed) and value.brackets in {"", "{}"} else (value,)
    return _Congruence(name.strip(), value_of(modulus), values)


def _reduced(residues: Sequence[Value], modulus: Fraction) -> set[Fraction] | None:
    numbers = [one for one in residues if isinstance(one, Fraction)]
    return {number % modulus for number in numbers} if len(numbers) == len(residues) else None
