"""Does the completion stay in the script of its question.

DeepSeek-R1 pays the share of words in the target language (arXiv 2501.12948, 2.3.2), because rewarded reasoning mixes
languages. To find the language of a word takes a model, to find its script does not, and the script shows the usual
mix: Chinese in an English chain of thought.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import Reward

_LONGEST_TEXT = 100_000
"""Characters that are read, counted from the end."""

_MARKUP = re.compile(r"</?[a-z]{1,20}>|\\[A-Za-z]{1,40}")
_WORD = re.compile(r"[^\W\d_]+")


def score_language(completion: str, example: Example) -> float | None:
    """The share of letters in a script that the question uses; None if either has no words.

    Tags, LaTeX commands and single Latin or Greek letters, which are variables, belong to no language.
    """
    wanted = set(_letters_by_script(example.question))
    letters = _letters_by_script(completion[-_LONGEST_TEXT:])
    if not wanted or not letters:
        return None
    return sum(count for script, count in letters.items() if script in wanted) / letters.total()


def _letters_by_script(text: str) -> Counter[str]:
    scripts: Counter[str] = Counter()
    for word in _WORD.findall(_MARKUP.sub(" ", text)):
        of_word = Counter(map(_script, word))
        if len(word) > 1 or not of_word.keys() <= {"LATIN", "GREEK", "MATHEMATICAL"}:
            scripts += of_word
    return scripts


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    """Returns the first word of a letter's Unicode name, which is its script: LATIN, CYRILLIC, CJK."""
    return unicodedata.name(letter, "UNNAMED").partition(" ")[0]


LANGUAGE_CONSISTENCY = Reward("language_consistency", score_language)
