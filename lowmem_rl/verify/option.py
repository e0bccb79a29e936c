"""The letter of a multiple-choice answer, alone or with the option's text: `C`, `(C)`, `C. x = 42`, `(B)\\ 111`."""

import re

_FIRST = frozenset("ABCDEFGHIJLOclo")
_LETTER = re.compile(r"\(?([A-J])[).:]?")
_PREFIX = re.compile(r"\s*\x1f?\s*(?:[Oo]ption|[Cc]hoice|[Ll]etter)\s+(?=\(?[A-J](?![A-Za-z]))")
_LABELED = re.compile(
    r"\s*\x1f?\s*(?:\(([A-J])\)[.:]?|([A-J])[.):])(?:[\s\x1f]+|(?=\d|\\(?:frac|sqrt|pi|left|begin)(?![A-Za-z])))"
    r"(?![-+*/=^<>|&,;)](?!\d)|(?:and|or|nor)\b|\\(?:cup|cap|times|cdot|div|to|in|le|ge|ne|approx)(?![A-Za-z]))(?=\S)"
)
_OTHER_LABEL = re.compile(r"(?:^|[\s,;(\x1f])[A-J][).:](?:\s|$)|\b(?:or|and)\s+\(?[A-J]\b|[,;]\s*[A-J]$")


def split_option(text: str) -> tuple[str, str]:
    """Returns the letter that labels an answer, or "", and the answer without it.

    A letter alone is the answer itself; a text with several letters names no option.
    """
    if text.lstrip(" \x1f(")[:1] not in _FIRST:  # most answers: a cheap look before two patterns
        return "", text
    if prefix := _PREFIX.match(text):
        text = text[prefix.end() :]
    label = _LABELED.match(text)
    if label is None or _OTHER_LABEL.search(text, label.end()) or _LETTER.fullmatch(text, label.end()):
        return "", text
    return label[1] or label[2], text[label.end() :]


def letter_of(option: str, text: str) -> str:
    """Returns the letter of an answer that `split_option` split, also of one that is only its letter; else ""."""
    alone = None if option else _LETTER.fullmatch(text)
    return alone[1] if alone else option
