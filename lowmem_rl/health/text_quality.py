"""Is a text broken, in any language: it loops, it compresses like a loop, or its characters are not text."""

import unicodedata
import zlib
from collections import Counter
from functools import lru_cache

_LONGEST_TEXT = 4000
"""Characters that are checked, from the end, where loops are."""

_COMPRESSED_TEXT = 1000
"""Characters whose compression is measured."""
_LOOP_COMPRESSION, _PER_CHARACTER = 2.4, 1 / 80
"""Bytes over compressed bytes from which a text is a loop: Whisper's limit for speech (openai/whisper,
`compression_ratio_threshold`), and more for long texts, since worked mathematics repeats itself legitimately. Measured
2026-11-20: GSM8K's 8,792 gold solutions reach 1.9 below 200 characters and 3.2 above, matrices under elimination 4.0
at 400 and 5.7 at 1,000; a repeated sentence has 6, 12 and 26 at 200, 400 and 1,000, babble in tags 2.7 at 160."""

_LONGEST_PERIOD, _FEWEST_REPEATS, _SHORTEST_LOOP, _LOOP_SHARE = 64, 4, 24, 0.5
_BROKEN_SHARE = 0.02
"""Of characters that are not text: the embedded model, destroyed, prints 1 to 13 %, honest text none."""
ALIEN_SHARE = 0.3
_KNOWN_SHARE = 0.05


@lru_cache(maxsize=8192)
def is_broken(text: str) -> bool:
    """True if a text loops, or a notable share of its characters is not text."""
    text = text[-_LONGEST_TEXT:]
    return (
        compression(text) > max(_LOOP_COMPRESSION, _PER_CHARACTER * min(len(text), _COMPRESSED_TEXT))
        or loop_length(text) >= max(_SHORTEST_LOOP, _LOOP_SHARE * len(text))
        or broken_share(text) > _BROKEN_SHARE
    )


def compression(text: str) -> float:
    """Returns by what factor the end of a text can be compressed."""
    content = text[-_COMPRESSED_TEXT:].encode("utf-8", "replace")
    return len(content) / len(zlib.compress(content))


def loop_length(text: str) -> int:
    """Returns the length of the longest ending that repeats one unit at least four times, 0 if none does."""
    longest = 0
    for period in range(1, min(_LONGEST_PERIOD, len(text) // _FEWEST_REPEATS) + 1):
        length = period
        while length < len(text) and text[-length - 1] == text[-length - 1 + period]:
            length += 1
        if length >= period * _FEWEST_REPEATS:
            longest = max(longest, length)
    return longest


def broken_share(text: str) -> float:
    """Returns the share of characters that are not text: halves of bytes, control characters, unassigned ones."""
    odd = sum(map(_is_odd, text))
    return odd / len(text) if text else 0.0


@lru_cache(maxsize=8)
def scripts_of(texts: tuple[str, ...]) -> frozenset[str]:
    """Returns the scripts of a notable share of the letters, and always the two of mathematics."""
    letters = Counter(script for text in texts for script in map(_script, text[-_LONGEST_TEXT:]) if script)
    common = {script for script, n in letters.items() if n >= _KNOWN_SHARE * letters.total()}
    return frozenset(common | {"LATIN", "GREEK"})


@lru_cache(maxsize=8192)
def alien_share(text: str, known: frozenset[str]) -> float:
    """Returns the share of letters in scripts that are not known."""
    scripts = [script for script in map(_script, text[-_LONGEST_TEXT:]) if script]
    return sum(script not in known for script in scripts) / len(scripts) if scripts else 0.0


@lru_cache(maxsize=65536)
def _is_odd(letter: str) -> bool:
    return letter == "\ufffd" or (unicodedata.category(letter) in ("Cc", "Cn", "Co", "Cs") and letter not in "\n\t\r")


@lru_cache(maxsize=65536)
def _script(letter: str) -> str:
    """Returns a letter's script, the first word of its Unicode name; "" if it is not a letter."""
    return unicodedata.name(letter, "UNNAMED").partition(" ")[0] if letter.isalpha() else ""
