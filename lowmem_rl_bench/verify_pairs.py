"""Generated answers with known verdicts: pairs of spellings of rationals, near misses, and the fixed mix.

Everything follows from a seed, so a record can be repeated.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """A given answer, the gold one, whether they are equal, and the kind of pair."""

    given: str
    gold: str
    equal: bool
    kind: str


_Spell = Callable[[Fraction, random.Random], str]


def _spell_integer(value: Fraction, rng: random.Random) -> str:
    """Writes an integer as people do: bare, with commas, as money, with places, zeros, a unit or its name."""
    n = int(value)
    sign, digits = "-" if n < 0 else "", str(abs(n))
    ways = [
        f"{n}", f"{n:,}", f"{sign}0{digits}", f"{n}.0", f"{n:,}.00", f"{sign}${abs(n):,}", f"{n} apples",
        f"{n}\\text{{ cm}}", f"x = {n}", f"{n:,}".replace(",", "{,}"), f"${n}$",
    ]  # fmt: skip
    return rng.choice(ways if n < 0 else [*ways, f"+{n}"])


def _spell_fraction(value: Fraction, rng: random.Random) -> str:
    """Writes a rational as a fraction, reduced or not, or as a mixed number."""
    sign, value = ("-" if value < 0 else ""), abs(value)
    factor = rng.choice([1, 1, 2, 3, 10])
    above, below = value.numerator * factor, value.denominator * factor
    ways = [
        f"{sign}{above}/{below}",
        f"{sign}\\frac{{{above}}}{{{below}}}",
        f"{sign}\\dfrac{{{above}}}{{{below}}}",
        f"\\frac{{{sign}{above}}}{{{below}}}",
    ]
    whole, rest = divmod(above, below)
    if whole and rest:
        ways += [f"{sign}{whole} {rest}/{below}", f"{sign}{whole}\\frac{{{rest}}}{{{below}}}"]
    return rng.choice(ways)


def _spell_decimal(value: Fraction, rng: random.Random) -> str:
    """Writes a rational whose denominator divides 1000 as a decimal."""
    sign, value = ("-" if value < 0 else ""), abs(value)
    whole, places = divmod(value.numerator * 1000 // value.denominator, 1000)
    text = f"{places:03}".rstrip("0") or "0"
    ways = [f"{sign}{whole}.{text}", f"{sign}{whole}.{text}00", f"{sign}{whole:,}.{text}"]
    return rng.choice(ways if whole else [*ways, f"{sign}.{text}"])


def rational_pairs(count: int, seed: int = 0) -> list[AnswerPair]:
    """Returns pairs of spellings, half of them of the same number, half of nearly the same."""
    rng = random.Random(seed)
    return [_rational_pair(rng, index) for index in range(count)]


def _rational_pair(rng: random.Random, index: int) -> AnswerPair:
    kind = rng.choice([*_SPELLINGS, "rounded"])
    value = _draw(kind, rng)
    if kind == "rounded":
        given = f"{float(value):.{rng.choice([6, 7])}f}"
        return AnswerPair(given, _spell_fraction(value, rng), Fraction(given) == value, kind)
    equal = index % 2 == 0
    steps = [Fraction(1), Fraction(-1), Fraction(10), -2 * value]  # the same spellings can write the sum
    steps += [] if kind == "integer" else [Fraction(1, value.denominator)]
    other = value if equal else value + rng.choice(steps)
    given, gold = (rng.choice(_SPELLINGS[kind])(number, rng) for number in (other, value))
    return AnswerPair(given, _bare(gold), equal, kind)


def _draw(kind: str, rng: random.Random) -> Fraction:
    size = 10 ** rng.randint(1, 6)
    number = rng.randint(-size, size) or 1
    if kind == "integer":
        return Fraction(number)
    has_period = kind in {"fraction", "rounded"}
    return Fraction(number, rng.choice([3, 7, 9, 11, 13] if has_period else [8, 10, 25, 100, 1000]))


def _bare(gold: str) -> str:
    """Returns a gold answer without unit, name and currency, which only completions have."""
    return gold.replace(" apples", "").replace("\\text{ cm}", "").removeprefix("x = ").replace("$", "")


_SPELLINGS: dict[str, list[_Spell]] = {
    "integer": [_spell_integer],
    "decimal": [_spell_decimal],
    "fraction": [_spell_fraction],
    "decimal and fraction": [_spell_decimal, _spell_fraction],
}


def near_misses(count: int, seed: int = 0) -> list[AnswerPair]:
    """Returns nearly right answers: off by one, another sign, reordered or extra digits, another denominator."""
    rng = random.Random(seed)
    return [_near_miss(rng) for _ in range(count)]


def _near_miss(rng: random.Random) -> AnswerPair:
    n = rng.choice([1, -1]) * rng.randint(2, 10 ** rng.randint(1, 6))
    kind = rng.choice(["off by one", "sign", "reordered digits", "extra digit", "denominator"])
    if kind == "denominator":
        below = rng.randint(2, 99)
        value, wrong = Fraction(n, below), Fraction(n, below + rng.choice([1, 10, -below + 1]))
        return AnswerPair(_spell_fraction(wrong, rng), _spell_fraction(value, rng), wrong == value, kind)
    wrong = Fraction(_misread(n, kind, rng))
    return AnswerPair(_spell_integer(wrong, rng), str(n), wrong == n, kind)


def _misread(n: int, kind: str, rng: random.Random) -> int:
    """Returns another integer than `n`."""
    digits = str(abs(n))
    if kind == "sign":
        return -n
    if kind == "extra digit":
        at = rng.randint(0, len(digits))
        return int(digits[:at] + str(rng.randint(1, 9)) + digits[at:]) * (-1 if n < 0 else 1)
    swapped = int("".join(rng.sample(digits, len(digits)))) * (-1 if n < 0 else 1)
    return swapped if kind == "reordered digits" and swapped != n else n + rng.choice([1, -1])


def gsm8k_pairs(count: int, seed: int = 0) -> list[AnswerPair]:
    """Returns integers as GSM8K's completions give them, half of them wrong."""
    rng = random.Random(seed)
    pairs = []
    for index in range(count):
        n = rng.randint(1, 10 ** rng.randint(1, 5))
        given = n if index % 2 == 0 else n + rng.randint(1, 9)
        text = rng.choice([f"{given}", f"{given:,}", f"${given}", f"${given:,}.00", f"{given} apples", f"{given}%"])
        pairs.append(AnswerPair(text, str(n), given == n, "gsm8k"))
    return pairs


def sequence_pairs(count: int, seed: int = 0) -> list[AnswerPair]:
    """Returns tuples, intervals and sets, half of them wrong."""
    rng = random.Random(seed)
    return [_sequence_pair(rng, index % 2 == 0) for index in range(count)]


def _sequence_pair(rng: random.Random, equal: bool) -> AnswerPair:
    opening, closing = rng.choice(["()", "[]", "[)", "(]", ("\\{", "\\}")])
    low = rng.randint(-99, 99)
    numbers = [Fraction(low), Fraction(low + rng.randint(1, 99), rng.choice([1, 1, 3]))]
    if numbers[1] <= numbers[0]:
        numbers[1] = numbers[0] + 1
    others = numbers if equal else [numbers[0], numbers[1] + 1]
    given, gold = (
        opening
        + f",{' ' * rng.randint(0, 1)}".join(_spell_fraction(x, rng) if x.denominator > 1 else str(x) for x in row)
        + closing
        for row in (others, numbers)
    )
    return AnswerPair(given, gold, equal, "sequence")


def symbolic_pairs(count: int, seed: int = 0) -> list[AnswerPair]:
    """Returns algebraic expressions, functions and equations, half of them wrong."""
    rng = random.Random(seed)
    return [_symbolic_pair(rng, index % 2 == 0) for index in range(count)]


def _symbolic_pair(rng: random.Random, equal: bool) -> AnswerPair:
    a, b, c = rng.randint(2, 12), rng.randint(2, 12), rng.randint(2, 12)
    off = 0 if equal else 1
    given, gold = rng.choice(
        [
            (f"(x+{a})(x+{b})", f"x^2+{a + b}x+{a * b + off}"),
            (f"{a}\\sqrt{{{b * c * c}}}", f"{a * c + off}\\sqrt{{{b}}}"),
            (f"\\frac{{{a}\\pi}}{{{b}}}", f"\\frac{{{a * c + off}}}{{{b * c}}}\\pi"),
            (f"\\frac{{x+{a}}}{{{b}}}", f"\\frac{{x}}{{{b}}}+\\frac{{{a + off}}}{{{b}}}"),
            (f"{a}+{b}i", f"{b}i+{a + off}"),
            (f"{a}\\sin^2(x)+{a}\\cos^2(x)", f"{a + off}"),
            (f"\\log_{{{a}}}({a**b})", f"{b + off}"),
            (f"{a}x+{b}y={c}", f"{2 * a}x+{2 * b}y={2 * c + off}"),
            (f"x>{a}", f"{a + off}<x"),
            (f"{a}e^{{{b}x}}", f"{a + off}e^{{{b}x}}"),
        ]
    )
    return AnswerPair(given, gold, equal, "symbolic")


def mixed_pairs(count: int, seed: int = 0) -> list[AnswerPair]:
    """Returns the fixed mix: 60 % integers and decimals, 20 % fractions, 10 % tuples and intervals, 10 % symbolic."""
    rng = random.Random(seed)
    rationals = rational_pairs(5 * count, seed)
    plain = [pair for pair in rationals if pair.kind in {"integer", "decimal"}][: count * 6 // 10]
    fractions = [pair for pair in rationals if pair.kind == "fraction"][: count * 2 // 10]
    pairs = plain + fractions + sequence_pairs(count // 10, seed) + symbolic_pairs(count // 10, seed)
    rng.shuffle(pairs)
    return pairs
