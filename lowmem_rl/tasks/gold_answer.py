"""Takes the gold answer out of what a data set's column holds: the answer alone, or a worked solution that states it.

| `task.answer` | The answer is | As in |
|---|---|---|
| `whole` | the whole column | MATH-500, DeepScaleR |
| `after_hashes` | the line after the last `####` | GSM8K |
| `last_box` | what the last `\\boxed{...}` or `\\boxed 5` holds | MATH, NuminaMath-CoT |
| `after_answer_is` | the sentence after the last "answer is" | MetaMathQA |
| `letter` | the letter of an option: B of `\\textbf{(B)}\\ 111` | AMC |
| `auto` | the first of `after_hashes`, `last_box` and `after_answer_is` that a row has, else `whole` | |
"""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from lowmem_rl.verify.extract import last_box
from lowmem_rl.verify.normalize import LONGEST_ANSWER

AnswerForm = Literal["auto", "whole", "last_box", "after_hashes", "after_answer_is", "letter"]

_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]*)")
_BARE_BOX = re.compile(r"\\boxed\s+([^\s$\\.{}]+)")
_ANSWER_IS = re.compile(
    r"(?:\b(?:answers?(?: to [^.:\n]{1,80}?)?|ans|(?:correct|right) (?:option|choice))"
    r"(?: is| are| would be| will be|\s*[:=：])|答案[是为:：])[ \t]*[:：]?",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|。")
_MARKS = r"(?:\\(?:(?:text|math)(?:bf|it|rm|sf|tt|normal)?|mbox|bf|rm|q?quad)(?![A-Za-z])|\\[,;:! ]|[{}$~*\s])*"
"""Fonts, spaces and marks around an option: `\\textbf{(B)}\\ `."""
_OPTION = re.compile(
    rf"{_MARKS}(?:[Oo]ption |[Cc]hoice )?"
    rf"(?:[(\[]{_MARKS}([A-Ja-j]){_MARKS}[)\]]|([A-Ja-j]\)|[A-J][.:](?=[}}\s]|$)|[A-J](?={_MARKS}$))){_MARKS}(?![,;]|and\b|or\b)(.*)",
    re.DOTALL,
)


class TakenAnswer(NamedTuple):
    """An answer, and the form in which it was found."""

    text: str
    form: AnswerForm


class Option(NamedTuple):
    """A choice as it is written: its letter, and its text or ""."""

    letter: str
    text: str


def take_answer(gold: str, form: AnswerForm) -> TakenAnswer | None:
    """Returns the answer that `gold` states in a form, None if it states none so."""
    if form == "auto":
        return find_answer(gold)
    found = _READERS[form](gold)
    return TakenAnswer(found, form) if found else None


def find_answer(gold: str) -> TakenAnswer:
    """Returns the answer after `####`, in a box or after "answer is", in this order; else the whole text."""
    forms: tuple[AnswerForm, ...] = ("after_hashes", "last_box", "after_answer_is")
    stated = ((form, _READERS[form](gold)) for form in forms)
    fitting = (TakenAnswer(text, form) for form, text in stated if 0 < len(text) <= LONGEST_ANSWER)
    return next(fitting, TakenAnswer(gold, "whole"))


def option_of(gold: str) -> Option | None:
    """Returns the option that a gold answer names by its letter, as in `(B) 111`, `B. Paris` or `\\textbf{(B)}`."""
    found = _OPTION.fullmatch(gold.strip())
    if found is None:
        return None
    text = found[3].rstrip("$* ")
    while text.endswith("}") and text.count("}") > text.count("{"):
        text = text[:-1].rstrip("$* ")
    return Option((found[1] or found[2])[0].upper(), text)


def boxed_answer(solution: str) -> str:
    """Returns the answer that a solution boxes last, also in the form `\\boxed 5`; "" if there is none."""
    bare = _BARE_BOX.findall(solution)
    return last_box(solution) or (bare[-1] if bare else "")


def _after_hashes(gold: str) -> str:
    lines = _HASHES.findall(gold)
    return lines[-1].strip() if lines else ""


def _after_answer_is(gold: str) -> str:
    """Returns the sentence that states the answer, without its mark at the end and the marks around it."""
    start = max((stated.end() for stated in _ANSWER_IS.finditer(gold)), default=len(gold))
    line = gold[start:].lstrip("* \t\n").partition("\n")[0]
    sentence = _SENTENCE_END.split(line, maxsplit=1)[0].strip("* ")
    return sentence[1:-1].strip() if re.fullmatch(r"\$[^$]+\$", sentence) else sentence


def _letter(gold: str) -> str:
    option = option_of(gold) or option_of(find_answer(gold).text)
    return option.letter if option else ""


_READERS: dict[str, Callable[[str], str]] = {
    "whole": str.strip,
    "last_box": boxed_answer,
    "after_hashes": _after_hashes,
    "after_answer_is": _after_answer_is,
    "letter": _letter,
}
