"""Functions in plain text, Unicode, degrees and angle brackets, as LaTeX."""

import pytest

from lowmem_rl.verify.equal import compare_exactly


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("floor(x+1)", "\\lfloor x + 1 \\rfloor"),
        ("ceil(x/2)", "\\left\\lceil \\frac{x}{2} \\right\\rceil"),
        ("2*abs(x-1)", "2|x-1|"),
        ("abs(1-x)", "|x-1|"),
        ("exp(-x)*sin(x)", "e^{-x}\\sin x"),
        ("atan(3)", "\\arctan(3)"),
        ("atan(1/2)", "\\arctan\\frac{1}{2}"),
        ("asin(x)", "\\arcsin x"),
        ("sqrt(x+1)/2", "\\frac{\\sqrt{x+1}}{2}"),
        ("cbrt(4)", "\\sqrt[3]{4}"),
        ("ln(abs(x)) + C", "\\ln|x|+C"),
        ("x*exp(x) - exp(x) + C", "C - e^x + xe^x"),
        ("Abs(x)", "|x|"),
        ("\\operatorname{arctan}(2)", "\\arctan 2"),
        ("\\text{floor}(x)", "\\lfloor x\\rfloor"),
        ("xsin(x)", "x\\sin x"),
        ("log2(3)", "\\log_2 3"),
        ("acos(x)", "\\arccos(x)"),
        ("floor(7/2)", "3"),
        ("abs(-3)", "3"),
        ("abs(abs(x)-1)", "||x|-1|"),
        ("\\lvert x \\rvert", "abs(x)"),
        ("⌊x⌋", "floor(x)"),
        ("-2+exp(5)", "e^{5}-2"),
        ("¼", "0.25"),
        ("2½", "5/2"),
        ("⅔", "2/3"),
        ("3⅞", "31/8"),
        ("∛5", "5^{1/3}"),
        ("∜5", "5^{1/4}"),
        ("10⁻⁴", "0.0001"),
        ("x²+y³", "x^2+y^3"),
        ("x²³", "x^{23}"),
        ("a₁+a₂", "a_2+a_1"),
        ("5×10⁻³", "0.005"),
        ("¹⁄₂", "1/2"),
        ("2√3", "\\sqrt{12}"),
        ("√(x+1)", "\\sqrt{x+1}"),
        ("eˣ", "e^x"),
        ("xⁿ⁺¹", "x^{n+1}"),
        ("12 cm²", "12\\text{ cm}^2"),
        ("1011₂", "1011_2"),
        ("θ/2", "\\frac{\\theta}{2}"),
        ("π²/6", "\\frac{\\pi^2}{6}"),
        ("\\sin 30^\\circ", "\\frac12"),
        ("\\cos 75^\\circ", "\\frac{\\sqrt6-\\sqrt2}{4}"),
        ("\\tan 45^{\\circ}", "1"),
        ("2\\sin(30°)", "1"),
        ("\\cos 60 \\text{ degrees}", "1/2"),
        ("\\sin^2 45^\\circ", "1/2"),
        ("10\\cos 30^\\circ", "5\\sqrt{3}"),
        ("\\sin 37^\\circ", "\\sin(37^\\circ)"),
        ("\\sin(30^\\circ+15^\\circ)", "\\frac{\\sqrt2}{2}"),
        ("\\frac{\\sin 60^\\circ}{\\sin 45^\\circ}", "\\frac{\\sqrt{6}}{2}"),
        ("\\cos 36^\\circ", "\\frac{1+\\sqrt5}{4}"),
        ("30^\\circ", "30"),
        ("\\langle 3,4\\rangle", "(3,4)"),
        ("\\left\\langle -1, \\frac12, 3\\right\\rangle", "(-1,0.5,3)"),
        ("<1,2,3>", "(1,2,3)"),
        ("⟨1, 2⟩", "\\langle 1,2\\rangle"),
        ("abcd+1", "1+abcd"),
        ("wxyz - 2", "-2+wxyz"),
        ("1/2x+3", "3+1/2x"),
        ("\\log 5 + \\log 3", "\\log 3 + \\log 5"),
        ("2 + \\int_0^1 f", "\\int_0^1 f + 2"),
    ],
)
def test_other_notations_are_read_as_latex(one: str, other: str) -> None:
    assert compare_exactly(one, other) is True
    assert compare_exactly(other, one) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("floor(x)", "\\lceil x\\rceil"),
        ("floor(x)", "x"),
        ("atan(2)", "\\arctan 3"),
        ("exp(12)", "e^{11}"),
        ("abs(x)", "x+1"),
        ("exp(x)-1", "1-e^x"),
        ("½", "1/3"),
        ("10⁻⁶", "10^6"),
        ("∛4", "\\sqrt{4}"),
        ("x²³", "x^6"),
        ("1½", "1/2"),
        ("\\cos 60^\\circ", "\\frac{\\sqrt3}{2}"),
        ("\\sin 15^\\circ", "\\frac{\\sqrt6+\\sqrt2}{4}"),
        ("\\sin 30", "1/2"),
        ("abcd+1", "abcd+2"),
        ("abcd-1", "1-abcd"),
        ("\\langle 1,2\\rangle", "(2,1)"),
        ("\\langle 1,2\\rangle", "(1,3)"),
    ],
)
def test_near_misses_in_other_notations_are_unequal(one: str, other: str) -> None:
    assert compare_exactly(one, other) is False
    assert compare_exactly(other, one) is False


@pytest.mark.parametrize(
    "text", ["abs(", "abs(abs(" * 60, "floor(x" * 70, "\\sqrt(" * 80, "½" * 500, "⁻" * 500, "sin(°" * 100]
)
def test_what_is_never_closed_stays(text: str) -> None:
    assert compare_exactly(text, "1") in (None, False)


@pytest.mark.parametrize(
    ("given", "gold", "verdict"),
    [
        ("lnx", "\\ln x", True),
        ("2sinx", "2\\sin x", True),
        ("sinx + cosx", "\\cos x + \\sin x", True),
        ("tany", "\\tan x", False),
        ("sinx", "\\cos x", False),
    ],
)
def test_a_function_may_touch_its_variable(given: str, gold: str, verdict: bool) -> None:
    assert (compare_exactly(given, gold) is True) is verdict
