"""Are two equations, or two inequalities, the same: solved for a variable, in the field.

If the difference of a relation's sides is linear in a variable v, it has one root in v. If the other relation's
difference is not zero there, the two differ; if it is linear in v and zero there, they are the same. Two equations are
also the same if one difference is a multiple of the other, as for x²/4 + y²/3 = 1 and 3x² + 4y² = 12. Relations that
are neither are left to symbolic algebra.
"""

import re
from dataclasses import dataclass

from lowmem_rl.verify import finite_field
from lowmem_rl.verify.expression import image_of, variables
from lowmem_rl.verify.finite_field import PRIME, Residue

_RELATION = re.compile(r"<=|>=|\\leq?(?![A-Za-z])|\\geq?(?![A-Za-z])|\\lt(?![A-Za-z])|\\gt(?![A-Za-z])|[<>=]")
_DIRECTION = {"<": -1, "\\lt": -1, "\\le": -1, "\\leq": -1, "<=": -1, "=": 0}
_ANYWHERE = 1234567890123456789
"""A residue at which no curve meets its chord by accident."""
_ANYWHERE_ELSE = 987654321987654321
_PARAMETER = re.compile(r"\\(?!sqrt|frac|pi|cdot|times|sin|cos|tan|ln|exp|log)[A-Za-z]|_")
"""A name that `variables` does not return."""
_STRICT = {"<", ">", "\\lt", "\\gt"}
_FUNCTION_OF = re.compile(r"[A-Za-z]\s*\(")


@dataclass(frozen=True, slots=True)
class _Relation:
    """`left - right` compared with 0: direction -1 for below, 0 for equal, 1 for above; strict or not."""

    left: str
    right: str
    direction: int
    strict: bool

    def at(self, variable: str, residue: int) -> Residue | None:
        """Returns the image of `left - right` with a residue for a variable."""
        left, right = image_of(self.left, (variable, residue)), image_of(self.right, (variable, residue))
        return None if left is None or right is None else finite_field.add(left, finite_field.negate(right))


def _read_relation(text: str) -> _Relation | None:
    """Returns a text as a relation, or None if it does not have exactly one relation sign."""
    found = list(_RELATION.finditer(text))
    if len(found) != 1 or _FUNCTION_OF.match(text):
        return None
    sign = found[0][0]
    left, right = text[: found[0].start()], text[found[0].end() :]
    return _Relation(left, right, _DIRECTION.get(sign, 1), sign in _STRICT)


def same_relation(given: str, gold: str) -> bool | None:
    """Returns whether two relations are the same; None if that takes symbolic algebra."""
    one, other = _read_relation(given), _read_relation(gold)
    if one is None or other is None or bool(one.direction) != bool(other.direction):
        return None
    for variable in variables(other.left) + variables(other.right):
        if line := _slope_and_root(other, variable):
            return _same_at(line, variable, one, other)
    return True if not one.direction and _are_proportional(one, other) else None


def _are_proportional(one: _Relation, other: _Relation) -> bool:
    """Returns whether the quotient of the differences is the same number wherever it is looked at.

    A quotient that changes with no single variable is a constant: at points without structure, as are the variables'
    residues, all partial derivatives are zero.
    """
    names = {*variables(one.left), *variables(one.right), *variables(other.left), *variables(other.right)}
    if _PARAMETER.search("".join((one.left, one.right, other.left, other.right))):
        return False
    quotients = set()
    for name in names:
        for residue in (_ANYWHERE, _ANYWHERE_ELSE):
            left, right = one.at(name, residue), other.at(name, residue)
            if left is None or right is None or not left.residue or not right.residue:
                return False
            quotients.add(left.residue * pow(right.residue, -1, PRIME) % PRIME)
    return len(quotients) == 1


def _same_at(line: tuple[Residue, int], variable: str, one: _Relation, other: _Relation) -> bool | None:
    slope, root = line
    there, same_line = one.at(variable, root), _slope_and_root(one, variable)
    if there is None or there.opaque:
        return None
    if there.residue or (same_line is not None and one.strict is not other.strict):
        return False
    if same_line is None:
        return None
    if not one.direction:
        return True
    slopes = slope.rational, same_line[0].rational
    if slopes[0] is None or slopes[1] is None:
        return None
    return (slopes[0] * other.direction > 0) == (slopes[1] * one.direction > 0)


def _slope_and_root(relation: _Relation, variable: str) -> tuple[Residue, int] | None:
    """Returns slope and root of the difference in a variable, or None if three points are not on one line."""
    zero, one, far = (relation.at(variable, residue) for residue in (0, 1, _ANYWHERE))
    if zero is None or one is None or far is None or zero.opaque or one.opaque or far.opaque:
        return None
    slope = finite_field.add(one, finite_field.negate(zero))
    if not slope.residue or (far.residue - zero.residue - _ANYWHERE * slope.residue) % PRIME:
        return None
    return slope, -zero.residue * pow(slope.residue, -1, PRIME) % PRIME
