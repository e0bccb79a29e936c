"""Rewrites other notations of mathematics as LaTeX: Unicode's fractions and powers, and functions in plain text."""

import re
import unicodedata

_SUPERSCRIPT = "[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱᵃᵇᶜᵈᵉᵏᵐᵖᵗˣʸᶻ]+"
_SUBSCRIPT = "[₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₐₑᵢⱼₖₘₙₚₓ]+"
_SCRIPTS = re.compile(
    rf"(?P<above>[⁰¹²³⁴-⁹]+)[⁄/](?P<below>[₀-₉]+)|(?P<power>{_SUPERSCRIPT}(?:⁄{_SUPERSCRIPT})?)|{_SUBSCRIPT}"
)
_ROOT = re.compile(r"([√∛∜])\s*(?:(\d+(?:\.\d+)?|[A-Za-z])|(?=\())")
_ROOTS = {"√": "\\sqrt", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]"}
_FRACTIONS = {
    character: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", character).split("⁄"))
    for character in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞↉"
}
_GREEK = dict(zip("αβγδεζηθικλμνξρστφχψω", (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "rho", "sigma", "tau", "phi", "chi", "psi", "omega",
), strict=True))  # fmt: skip
_LATEX = {
    "⌊": "lfloor", "⌋": "rfloor", "⌈": "lceil", "⌉": "rceil", "⟨": "langle", "⟩": "rangle", "〈": "langle",
    "〉": "rangle", "≡": "equiv", "∖": "setminus", "∩": "cap", "∨": "lor", "∧": "land", "∛": "sqrt[3]",
    "∜": "sqrt[4]", "ϕ": "phi", "ℝ": "mathbb{R}", "ℤ": "mathbb{Z}", "ℕ": "mathbb{N}", "ℚ": "mathbb{Q}", "∣": "mid",
    "∙": "cdot", "∗": "cdot",
} | _GREEK  # fmt: skip
_MARKS = str.maketrans(_FRACTIONS | {mark: f"\\{name} " for mark, name in _LATEX.items()} | {"∕": "/", "′": "'"})

_NAMES = "arcsin arccos arctan sinh cosh tanh sin cos tan sec csc cot ln log exp"
_FORMS = {name: f"\\{name}({{}})" for name in _NAMES.split()} | {
    "asin": "\\arcsin({})", "acos": "\\arccos({})", "atan": "\\arctan({})", "abs": "|{}|", "factorial": "({})!",
    "floor": "\\lfloor {} \\rfloor", "ceil": "\\lceil {} \\rceil", "ceiling": "\\lceil {} \\rceil",
    "sqrt": "\\sqrt{{{}}}", "cbrt": "\\sqrt[3]{{{}}}", "log2": "\\log_{{2}}({})", "log10": "\\log_{{10}}({})",
}  # fmt: skip
_CALL = re.compile(
    rf"(?:\x1f\s*|(?<![A-Za-z]{{2}})(?<!\\[A-Za-z])(?<!\\))({'|'.join(sorted(_FORMS, key=len, reverse=True))})"
    r"\s*(\()|\\(abs|floor|ceil)\s*(\{)|\\(sqrt)\s*(\()",
    re.IGNORECASE,
)
"""A name without a backslash, after at most one letter: `x sin(x)` may be written `xsin(x)`."""
_GLUED = re.compile(r"(?<![A-Za-z\\])(sin|cos|tan|ln|log)([txy])(?![A-Za-z])")
_MAY_CALL = re.compile(r"[A-Za-z02] ?\(")
_BARS = re.compile(r"\\[lr]?vert(?![A-Za-z])|\\middle\s*\|")
_ANGLES = re.compile(r"\\([lr])angle(?![A-Za-z])|^<(?=[^<>=]+,[^<>=]+>$)|(?<=[^<>=])>$")
_DEGREES_OF = re.compile(
    r"(?<!arc)(?:sin|cos|tan|sec|csc|cot)(?![a-z])(?!\s*\^\s*\{?\s*-)(?:(?!\\approx|[=,;]).)*°", re.DOTALL
)
_BRACKETS = {"(": ")", "{": "}"}


def from_unicode(text: str) -> str:
    """Returns a text with Unicode's fractions, powers, indices, roots, Greek letters and marks as LaTeX."""
    return _ROOT.sub(_root, _SCRIPTS.sub(_script, text)).translate(_MARKS)


def _script(match: re.Match[str]) -> str:
    if match["above"]:
        return f"\\frac{{{_plain(match['above'])}}}{{{_plain(match['below'])}}}"
    return f"{'^' if match['power'] else '_'}{{{_plain(match[0])}}}"


def _plain(script: str) -> str:
    return unicodedata.normalize("NFKC", script).replace("−", "-").replace("⁄", "/")


def _root(match: re.Match[str]) -> str:
    return _ROOTS[match[1]] + (f"{{{match[2]}}}" if match[2] else "")


def with_latex_functions(text: str) -> str:
    """Returns a text with `abs(x)`, `atan(x)` and their like in LaTeX, and `\\langle 1, 2 \\rangle` as `(1, 2)`.

    A degree sign inside a sine's argument becomes `\\degree`, a factor: there it is not a unit that may be left out.
    """
    if "vert" in text or "middle" in text:
        text = _BARS.sub("|", text)
    if "angle" in text or ">" in text:
        text = _ANGLES.sub(lambda match: "(" if match[1] == "l" or match[0] == "<" else ")", text)
    if ("(" in text and _MAY_CALL.search(text)) or "abs{" in text or "floor{" in text or "ceil{" in text:
        text = _with_calls(text)
    if "n" in text or "o" in text:
        text = _GLUED.sub(r"\\\1 \2", text)
    return _DEGREES_OF.sub(lambda match: match[0].replace("°", "\\degree "), text) if "°" in text else text


def _with_calls(text: str) -> str:
    at = 0
    while match := _CALL.search(text, at):
        name, opening = filter(None, match.groups())
        inside = _inside(text, match.end(), opening)
        at = match.start() + 1 if inside is None else match.start()
        if inside is not None:
            text = text[:at] + _FORMS[name.lower()].format(inside) + text[match.end() + len(inside) + 1 :]
    return text


def _inside(text: str, start: int, opening: str) -> str | None:
    """Returns what is between a bracket that ends at `start` and the one that closes it."""
    depth = 1
    for end in range(start, len(text)):
        depth += (text[end] == opening) - (text[end] == _BRACKETS[opening])
        if depth == 0:
            return text[start:end]
    return None
