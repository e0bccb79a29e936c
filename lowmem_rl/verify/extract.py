"""Finds the answer in a completion. Each function is linear in the text and returns None if there is no answer.

Reads, in this order: the last balanced `\\boxed{...}`; `#### n`; "answer is ...", also a sum that ends in `= n`; a text
that is only mathematics; the last formula between math marks, or the last number after it; the last words in bold.
`<answer>` tags are removed. Whether two answers are equal is decided in `equal.py`.
"""

import re
from collections.abc import Iterator

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_LONGEST_COMPLETION = 100_000
"""Characters, counted from the end: an answer before them is not read."""

_BOX_HEAD = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\[{}\\]|[{}]")
_HASHES = re.compile(r"####[ \t]*([^\n]{1,300})")
_ANSWER_IS = re.compile(
    r"(?:answers?|correct (?:option|choice))(?: is:?| are:?|:)\*{0,2}[ \t]*([^\n]{1,300})", re.IGNORECASE
)
_NUMBER = re.compile(
    r"(?:(?<!\d)[-−])?(?:"
    r"(?:\d{1,9} ?)?\\[dt]?frac\s{0,3}(?:\{[^{}]{1,50}\}|\d)\s{0,3}(?:\{[^{}]{1,50}\}|\d)"
    r"|(?:\\?\$|[€£])?(?:\d{1,9} \d{1,9}/\d{1,9}(?![\d/])|\d(?:[\d,]|\{,\})*(?:\.\d+)?(?:/\d+)?|(?<![.\d])\.\d+)"
    r")",
    re.ASCII,
)
"""A number with its sign, also before a currency sign: `-$5` is not 5, but `10-5` ends in 5. U+2212 is also a minus."""
_LONE_MINUS = re.compile(r"^(?:\\?\$)?[-−]\s+(?=[\d.\\$€£])")
_IN_A_NAME = re.compile(r"(?<=[A-Za-z])\d+(?=[A-Za-z])", re.ASCII)
"""A number inside a name, as in `AZYUK2A`."""
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_AND = re.compile(r"\s*,?\s+(?:and|or)\s+")
_ANSWER_TAG = re.compile(r"</?answer>")
_FORMULA = re.compile(
    r"\$\$([^$]{1,300})\$\$|(?<!\\)\$([^$\n]{1,300})(?<!\\)\$|\\\((.{1,300}?)\\\)|\\\[(.{1,300}?)\\\]", re.DOTALL
)
_NOT_PROSE = re.compile(
    r"\\(?:text|mathrm|mbox|textbf|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+|\b(?:sqrt|sin|cos|tan|log|ln|pi|exp)\b"
)
_PROSE = re.compile(r"[A-Za-z]{2,}|[\u0400-\u1fff\u3040-\u9fff\uac00-\ud7af]")
"""Words, and letters that formulas do not use: Cyrillic, Arabic, Chinese and so on."""
_BOLD = re.compile(r"\*\*([^*\n]{1,300})\*\*")
_LONGEST_FORMULA = 320
_TAIL = 3000
"""Characters at the end in which a plain answer is searched for."""


def after_thinking(completion: str) -> str:
    """Returns the text after the last `</think>`: an answer inside the thoughts does not count."""
    return completion.rpartition(THINK_CLOSE)[2]


def last_box(text: str) -> str | None:
    """Returns the content of the last balanced `\\boxed{...}`; an unclosed box does not count."""
    start, end = max(_balanced_boxes(text), default=(0, 0))
    return text[start:end].strip() if start else None


def strict_answer(completion: str) -> str | None:
    """Returns the answer in the requested form: the last box after the thoughts. Unclosed thoughts hide every box."""
    text = after_thinking(completion)
    return None if THINK_OPEN in text else last_box(text[-_LONGEST_COMPLETION:])


def lenient_answer(completion: str) -> str | None:
    """Returns the answer in any form: box, `####`, "answer is", else the last formula or number, else bold words.

    Unclosed thoughts hide nothing here: a model that knows the answer but not the format is paid.
    """
    text = _without_answer_tags(after_thinking(completion)[-_LONGEST_COMPLETION:])
    return (
        last_box(text)
        or _last_match(_HASHES, text)
        or _stated(_last_match(_ANSWER_IS, text))
        or _only_mathematics(text)
        or _last_formula_or_number(text)
        or _last_match(_BOLD, text)  # `The function is **even**.`
        or None
    )


def _balanced_boxes(text: str) -> list[tuple[int, int]]:
    """Returns the spans of the contents of all balanced boxes, in one pass over the braces.

    Spans, not texts: thousands of nested boxes would be copied thousands of times.
    """
    heads = {match.end() - 1: match.end() for match in _BOX_HEAD.finditer(text)}
    if not heads:
        return []
    contents, stack = [], []
    for brace in _BRACE.finditer(text, min(heads)):
        if brace.group() == "{":
            stack.append(brace.start())
        elif brace.group() == "}" and stack and (start := stack.pop()) in heads:
            contents.append((heads[start], brace.start()))
    return contents


def _last_match(pattern: re.Pattern[str], text: str) -> str:
    matches = pattern.findall(text)
    return matches[-1].strip() if matches else ""


def _only_mathematics(text: str) -> str | None:
    """Returns a text without words, as in `(1, 2)`. Of a sum the last number is read instead."""
    text = text.strip().rstrip(".,")
    return text if text and _is_formula(text) and "=" not in text and not _NUMBER.fullmatch(text) else None


def _last_formula_or_number(text: str) -> str | None:
    """Returns the last formula between math marks, or the last number if that comes after it."""
    tail = text[-_TAIL:]
    formula = max(_formulas(tail), default=None)
    numbers = _NUMBER.findall(_IN_A_NAME.sub(" ", text))
    number = numbers[-1].rstrip(",") if numbers else None
    return number if formula is None or (number and number in tail[formula[0] :]) else formula[1]


def _stated(text: str) -> str:
    """Returns what the first sentence states: a formula, the part after `=`, the first number, or the text."""
    sentence = _SENTENCE_END.split(text, maxsplit=1)[0].strip("* ")
    formulas = [formula for _, formula in _formulas(sentence)]
    listed = _AND.sub(", ", sentence.replace("$", ""))
    if (len(formulas) > 1 or _AND.search(sentence)) and _is_formula(listed) and "=" not in listed:
        return listed
    if formulas:
        return formulas[0]
    value = sentence.rpartition("=")[2].strip()
    is_whole = value == sentence or value.count("(") == value.count(")")
    if is_whole and _is_formula(value) and any(c.isalnum() for c in value):
        return _LONE_MINUS.sub("-", value)
    for part in (value, sentence, text):
        if number := _NUMBER.search(_LONE_MINUS.sub("-", part.strip())):
            return number.group().rstrip(",")
    return text.rstrip("*. ")


def _formulas(text: str) -> Iterator[tuple[int, str]]:
    """Yields each formula between math marks with the position of its end; `$5 and $7` and `$5 + $7` are money."""
    for match in _FORMULA.finditer(text):
        formula = match[match.lastindex or 0].strip()
        if formula and formula[-1] not in "+-*/=,(" and _is_formula(formula):
            yield match.end(), formula


def _is_formula(text: str) -> bool:
    return len(text) <= _LONGEST_FORMULA and _PROSE.search(_NOT_PROSE.sub(" ", text)) is None


def _without_answer_tags(text: str) -> str:
    """Returns the content of the last `<answer>`, or the text without such tags if that is empty."""
    if "<answer>" not in text:
        return text
    inside = text.rpartition("<answer>")[2].partition("</answer>")[0]
    return inside if inside.strip() else _ANSWER_TAG.sub("", text)
