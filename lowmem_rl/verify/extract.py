"""Finds the answer in a completion. Each function is linear in the text and returns None if there is no answer.

Reads, in this order: the last balanced `\\boxed{...}`; `#### n`; what follows "answer is" (`statement.py`); a text that
is only mathematics; the last formula between math marks, or the last number after it, with the words that change it;
the last words in bold. `<answer>` tags are removed. Whether two answers are equal is decided in `equal.py`.
"""

import re
from itertools import pairwise
from typing import Literal

from lowmem_rl.verify.formulas import NUMBER, formulas, is_formula, joined_digits
from lowmem_rl.verify.number_context import CONTEXT, in_context
from lowmem_rl.verify.statement import stated

Boxes = Literal["last", "first", "all"]
"""Which of several boxes is the answer."""

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_LONGEST_COMPLETION = 100_000
"""Characters, counted from the end: an answer before them is not read."""

_BOX_HEAD = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\[{}\\]|[{}]")
_HASHES = re.compile(r"####[ \t]*([^\n]{1,300})")
_ANSWER_IS = re.compile(
    r"(?:answers?|correct (?:option|choice))[*_]{0,3}(?: is\b:?| are\b:?|:)[*_]{0,3}[ \t]*(?=([^\n]{1,300}))",
    re.IGNORECASE,
)
_JUDGED = re.compile(r"(?:\w+ )?(?:correct|incorrect|right|wrong)\b", re.IGNORECASE)
"""The end of `I hope my answer is correct`."""
_MOST_CANDIDATES = 8
_IN_A_NAME = re.compile(r"(?<=[A-Za-z])\d+(?=[A-Za-z])", re.ASCII)
"""A number inside a name, as in `AZYUK2A`."""
_ANSWER_TAG = re.compile(r"</?answer>")
_STRESSED = re.compile(r"\*\*([^*\n]{1,300})\*\*|\\text(?:bf|it)?\{([^{}\n]{1,300})\}")
_TAIL = 3000
"""Characters at the end in which a plain answer is searched for."""


def after_thinking(completion: str) -> str:
    """Returns the text after the last `</think>`: an answer inside the thoughts does not count."""
    return completion.rpartition(THINK_CLOSE)[2]


def last_box(text: str) -> str | None:
    """Returns the content of the last balanced `\\boxed{...}`; an unclosed box does not count."""
    start, end = max(_balanced_boxes(text), default=(0, 0))
    return text[start:end].strip() if start else None


def boxed_answer(text: str, boxes: Boxes = "last") -> str | None:
    """Returns the content of the last box, of the first, or of all as a list, in which equal texts occur once."""
    if boxes == "last":
        return last_box(text)
    outermost: list[tuple[int, int]] = []
    for start, end in sorted(_balanced_boxes(text)):
        if not outermost or start > outermost[-1][1]:
            outermost.append((start, end))
    contents = [text[start:end].strip() for start, end in outermost]
    return ", ".join(dict.fromkeys(contents if boxes == "all" else contents[:1])) or None


def strict_answer(completion: str, boxes: Boxes = "last") -> str | None:
    """Returns the answer in the requested form: in a box after the thoughts. Unclosed thoughts hide every box."""
    text = after_thinking(completion)
    return None if THINK_OPEN in text else boxed_answer(text[-_LONGEST_COMPLETION:], boxes)


def lenient_answer(completion: str, boxes: Boxes = "last") -> str | None:
    """Returns the answer in any form: box, `####`, "answer is", else the last formula or number, else bold words.

    Unclosed thoughts hide nothing here: a model that knows the answer but not the format is paid.
    """
    text = _without_answer_tags(after_thinking(completion)[-_LONGEST_COMPLETION:])
    if marked := boxed_answer(text, boxes) or _last_match(_HASHES, text):
        return marked
    answer, text = _last_statement(joined_digits(text))
    return (
        answer
        or _only_mathematics(text)
        or _last_formula_or_number(text)
        or _last_match(_STRESSED, text)  # `The function is **even**.`
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
    matches = list(pattern.finditer(text))
    return matches[-1][matches[-1].lastindex or 0].strip() if matches else ""


def _last_statement(text: str) -> tuple[str | None, str]:
    """Returns the last answer after "answer is", and the text without the statements that deny one."""
    found = list(_ANSWER_IS.finditer(text))[-_MOST_CANDIDATES:]
    ends = [min(one.end(1), after.start()) for one, after in pairwise(found)] + [one.end(1) for one in found[-1:]]
    for statement, end in reversed(list(zip(found, ends, strict=True))):
        line = text[statement.end() : end]
        if not (statement is not found[0] and _JUDGED.match(line)) and (answer := stated(line)):
            return answer, text
        text = text[: statement.start()] + text[end:]
    return None, text


def _only_mathematics(text: str) -> str | None:
    """Returns a text without words, as in `(1, 2)`. Of a sum the last number is read instead."""
    text = text.strip().rstrip(".,")
    return text if text and is_formula(text) and "=" not in text and not NUMBER.fullmatch(text) else None


def _last_formula_or_number(text: str) -> str | None:
    """Returns the last formula between math marks, or the last number if that comes after it; not if it is denied."""
    shift = max(0, len(text) - _TAIL)
    found = [(shift + start, shift + end, formula) for start, end, formula in formulas(text[shift:])]
    after_formulas = found[-1][1] if found else 0
    names_hidden = _IN_A_NAME.sub(lambda name: " " * len(name[0]), text)
    found += [(*match.span(), match[0].rstrip(",")) for match in NUMBER.finditer(names_hidden, after_formulas)]
    for start, end, value in reversed(found[-_MOST_CANDIDATES:]):
        if answer := in_context(value, text[max(0, start - CONTEXT) : start], text[end : end + CONTEXT]):
            return answer
    return None


def _without_answer_tags(text: str) -> str:
    """Returns the content of the last `<answer>`, or the text without such tags if that is empty."""
    if "<answer>" not in text:
        return text
    inside = text.rpartition("<answer>")[2].partition("</answer>")[0]
    return inside if inside.strip() else _ANSWER_TAG.sub("", text)
