"""Are two equations, or two inequalities, the same: solved for a variable, in the field.

The difference f of a relation's sides that is linear in a variable v has one root in v. Where the other relation's
difference is not zero there, the two differ; where it is linear in v and zero there, they are the same. Relations that
are linear in no variable are left to algebra.
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
_STRICT = {"<", ">", "\\lt", "\\gt"}
_FUNCTION_OF = re.compile(r"[A-Za-z]\s*\(")


@dataclass(frozen=True, slots=True)
class Relation:
    """`left - right` compared with 0: -1 for below, 0 for equal, 1 for above; strictly or not."""

    left: str
    right: str
    direction: int
    strict: bool

    def at(self, variable: str, residue: int) -> Residue | None:
        """Returns the image of `left - right` with a residue in a variable's place."""
        left, right = image_of(self.left, (variable, residue)), image_of(self.right, (variable, residue))
        return None if left is None or right is None else finite_field.add(left, finite_field.negate(right))


@dataclass(frozen=True, slots=True)
class Line:
    """A difference that is linear in a variable: its slope and its root."""

    slope: Residue
    root: int


def read_relation(text: str) -> Relation | None:
    """Returns the relation that a text is, None where it has another number of relation signs than one."""
    found = list(_RELATION.finditer(text))
    if len(found) != 1 or _FUNCTION_OF.match(text):
        return None
    sign = found[0][0]
    left, right = text[: found[0].start()], text[found[0].end() :]
    return Relation(left, right, _DIRECTION.get(sign, 1), sign in _STRICT)


def same_relation(given: str, gold: str) -> bool | None:
    """Says whether two relations are the same; None where it takes algebra to tell."""
    one, other = read_relation(given), read_relation(gold)
    if one is None or other is None or bool(one.direction) != bool(other.direction):
        return None
    for variable in variables(other.left) + variables(other.right):
        line = _line(other, variable)
        if line is not None:
            return _same_at(line, variable, one, other)
    return None


def _same_at(line: Line, variable: str, one: Relation, other: Relation) -> bool | None:
    there, same_line = one.at(variable, line.root), _line(one, variable)
    if there is None or there.opaque:
        return None
    if there.residue or (same_line is not None and one.strict is not other.strict):
        return False
    if same_line is None:
        return None
    if not one.direction:
        return True
    slopes = line.slope.rational, same_line.slope.rational
    if slopes[0] is None or slopes[1] is None:
        return None
    return (slopes[0] * other.direction > 0) == (slopes[1] * one.direction > 0)


def _line(relation: Relation, variable: str) -> Line | None:
    """Returns the relation's difference as a line in a variable, None where three points do not lie on one."""
    values = [relation.at(variable, residue) for residue in (0, 1, _ANYWHERE)]
    zero, one, far = values
    if zero is None or one is None or far is None or zero.opaque or one.opaque or far.opaque:
        return None
    slope = finite_field.add(one, finite_field.negate(zero))
    if not slope.residue or (far.residue - zero.residue - _ANYWHERE * slope.residue) % PRIME:
        return None
    return Line(slope, -zero.residue * pow(slope.residue, -1, PRIME) % PRIME)
