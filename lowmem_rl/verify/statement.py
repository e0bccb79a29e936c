"""Reads what a sentence states after "answer is": a formula, a list, an option, a number with its words, or words."""

import re

from lowmem_rl.verify.computation import is_left_to_do
from lowmem_rl.verify.formulas import between_words, is_formula, without_math_marks
from lowmem_rl.verify.normalize import normal_form
from lowmem_rl.verify.number_context import in_context, is_operand

_EMPHASIS = re.compile(r"(?<![\w*_)\]}])(\*{1,3}|_{1,3}|`)(?=\S)([^*_`]{1,300}?)\s?\1(?![\w*_(])")
_SENTENCE_END = re.compile(
    r"(?<!approx)(?<!\bca)(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bMt)(?<!e\.g)(?<!\.[A-Z])[.?](?=\s|$)"
    r"|(?<!\\)!(?=\s*$|\s+[A-Z])"
)
_CLOSING_MARK = re.compile(r"\$\$(?!\d)|(?<!\\)\$(?![\d.\\-])|\\\]|\\\)")
_OPENING_MARK = re.compile(r"\$|\\\[|\\\(")
_AND = re.compile(r"\s*,?\s+(?:and|or)\s+")
_EITHER = re.compile(r"(?:either|both)\s+")
_NAMED = re.compile(r"\\?[A-Za-z]\w*(?:\s*\([A-Za-z]\))?\s*=[^=]*")
_REASON = re.compile(r",?\s+(?:because|since)\s", re.IGNORECASE)
_ROUNDED = re.compile(r"(?<=[\d})$])\s*,?\s*(?:or\s+|\()\s*(?:about|approximately|approx\.?|roughly)\s", re.IGNORECASE)
_CONTRAST = re.compile(r"(?<=[^\s,;(])(?:\s*(?:[,;(—–]|\b(?:and|but)\b)\s*not\b|\s+(?:rather than|instead of)\b)")
_DENIAL = re.compile(r"(?:\w+ly )?(?:not|neither|never)\b", re.IGNORECASE)
_CORRECTION = re.compile(
    r"(?:\bbut|[.;,]\s+(?:it(?: is|['’]s)|rather|instead))\b,?\s*(?:rather|instead)?,?\s*(?:it is\s)?", re.IGNORECASE
)
_WHICH_IS = re.compile(r"\b(?:is|equals|makes|gives)\b|\bi\.e\.|=", re.IGNORECASE)
_OPTION = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice|[Ll]etter)\s+)?(?:\(([A-J])\)(?=$|[\s.:,;])|([A-J])(?=$|[.):,;]))[.):,;]*\s*"
)
_ONE_LETTER = re.compile(r"(?<![A-Za-z\\])[A-J](?![A-Za-z])")
_LONE_MINUS = re.compile(r"^(?:\\?\$)?[-−]\s+(?=[\d.\\$€£])")
_UNSAID = re.compile(r"(?:.*\s)?(?:by|follows?|following|below|is|are)")
_LEADING_MARKS = re.compile(r"(?:[\s,;:)\]}*]|\.\s)*")
_SAYS_ENOUGH = re.compile(r".*\d|\W*(?!(?:that|and|so|but|now|then)\b)\S+(?:\s+\S+){0,2}$", re.DOTALL | re.IGNORECASE)
_CONDITION = re.compile(r"\b(?:for|when|where|if|with|at|given)\s*$")
_NAME_IS = re.compile(r"\s*\\?[A-Za-z]\w*\s*=")
_ONE_NOUN = re.compile(r" [a-z]+[a-rt-z]s")
"""`5 oranges` are not `5 apples`; a longer text after a number seldom is only its unit."""
_BRACKET = re.compile(r"\\[{}]|[()\[\]{}]")


def stated(text: str) -> str | None:
    """Returns the answer that a line states after "answer is", or None if it denies one or states none."""
    line = _inside_marks(text)
    if (words := _emphasized_words(line)) is not None:
        return words
    return _read(_EMPHASIS.sub(r"\2", line).strip("* "))


def _inside_marks(text: str) -> str:
    """Returns a line without the ends of math marks, groups and Markdown that opened before it."""
    for mark in _CLOSING_MARK.finditer(text):
        if len(_OPENING_MARK.findall(text[: mark.start()].replace("$$", "$"))) % 2 == 0 and not _opens(text, mark):
            text = text[: mark.start()]
            break
    return _without_unmatched(text, "{}").strip().rstrip("\\ ")


def _opens(text: str, mark: re.Match[str]) -> bool:
    """Returns whether a dollar opens a formula: another one follows."""
    return mark[0][0] == "$" and mark[0] in text[mark.end() :]


def _without_unmatched(text: str, brackets: str = "()[]{}\\{\\}") -> str:
    """Returns a text up to its first bracket that never closes, without closing brackets that none opened."""
    opened: list[int] = []
    unopened: list[int] = []
    for bracket in _BRACKET.finditer(text):
        if bracket[0] not in brackets:
            continue
        if bracket[0][-1] in "([{":
            opened.append(bracket.start())
        elif opened:
            opened.pop()
        else:
            unopened.append(bracket.start())
    end = opened[0] if opened else len(text)
    return "".join(character for at, character in enumerate(text[:end]) if at not in unopened)


def _emphasized_words(line: str) -> str | None:
    """Returns the words in bold or italics with which a line begins, as in `**Yes**, because 5 is prime`."""
    match = _EMPHASIS.match(line)
    if match is None or not match[2].replace(" ", "").rstrip(".!,").isalpha() or _DENIAL.match(match[2]):
        return None
    return None if re.match(r"\s*,?\s*(?:and|or)\b", line[match.end() :]) else match[2].rstrip(".!, ")


def _read(line: str, depth: int = 0) -> str | None:
    sentence = _first_sentence(line.removeprefix("that ").replace("i.e.", "that is"))
    if contrast := _CONTRAST.search(sentence):
        sentence = sentence[: contrast.start()]
    if _DENIAL.match(sentence):
        correction = _CORRECTION.search(line)
        if correction and depth < 2:
            return _read(line[correction.end() :], depth + 1)
        return None if any(character.isdigit() for character in sentence) else sentence
    return _option(sentence) or _list(sentence) or _value(sentence, depth)


def _first_sentence(line: str) -> str:
    """Returns the first sentence, without its reason and a rounded value in words."""
    sentence = _SENTENCE_END.split(line, maxsplit=1)[0].strip()
    for rest in (_REASON, _ROUNDED):
        if (match := rest.search(sentence)) and _SAYS_ENOUGH.match(sentence[: match.start()]):
            sentence = sentence[: match.start()]
    return without_math_marks(sentence).strip().rstrip(".").strip()


def _option(sentence: str) -> str | None:
    """Returns an option's letter with its text, as `(C) 42 students`; several letters are none."""
    option = _OPTION.match(sentence)
    if option is None or _ONE_LETTER.search(sentence, option.end()):
        return None
    return f"({option[1] or option[2]}) {sentence[option.end() :]}".strip()


def _list(sentence: str) -> str | None:
    """Returns the values between "and" and "or" as a list, each perhaps with its name."""
    parts = [part.strip() for part in _AND.split(_EITHER.sub("", sentence.replace("$", ""), count=1))]
    is_list = len(parts) > 1 and all(is_formula(part) and any(map(str.isalnum, part)) for part in parts)
    if not is_list or not all("=" not in part or _NAMED.fullmatch(part) for part in parts):
        return None
    return ", ".join(part.rstrip(",") for part in parts)


def _value(sentence: str, depth: int) -> str | None:
    """Returns the formula that a sentence is or holds, with the words that change it; without any the words."""
    if is_formula(sentence) and any(map(str.isalnum, sentence)):
        last = sentence.rpartition("=")[2].strip()
        return _LONE_MINUS.sub("-", _without_unmatched(sentence if is_left_to_do(last) else last))
    spans = list(between_words(sentence))
    if not spans:
        return None if not sentence or _UNSAID.fullmatch(sentence) else sentence
    sums = [(start, end) for start, end in spans if "=" in sentence[start:end] and not _is_condition(sentence, start)]
    start, end = _trimmed(sentence, *(sums[-1] if sums else spans[0]))
    before, after = sentence[:start], sentence[end:]
    computes = is_operand(before, after) or is_left_to_do(sentence[start:end])
    if computes and (equals := _WHICH_IS.search(after)) and depth < 2:
        return _read(after[equals.end() :].lstrip(" ,"), depth + 1)
    if _ONE_NOUN.fullmatch(after) and (counted := normal_form(sentence[start:])) and counted.unit:
        return sentence[start:]
    return in_context(_LONE_MINUS.sub("-", _without_unmatched(sentence[start:end])), before, after)


def _is_condition(sentence: str, start: int) -> bool:
    """Returns whether an equation says for which value something holds, as in `12 for n = 3`."""
    return bool(_CONDITION.search(sentence[:start]) and _NAME_IS.match(sentence, start))


def _trimmed(sentence: str, start: int, end: int) -> tuple[int, int]:
    """Returns the span of the value in a stretch without words: after its last `=`, without the marks around it."""
    start = sentence.rfind("=", start, end) + 1 or start
    if colon := re.compile(r"(?<=[\d}])\s*[:;]\s|\s[-–—]\s*$").search(sentence, start, end):
        end = colon.start()
    stripped = _LEADING_MARKS.sub("", sentence[start:end], count=1)
    start = end - len(stripped)
    return start, start + len(stripped.rstrip(" ,.;:([{*/"))
