r"""The verdict on an answer: exact if possible, else symbolic within limits of time and memory.

Answer checkers differ. The choices of this one (given answer, gold answer):

| Case | Verdict | Because |
|---|---|---|
| an empty answer, an empty gold | unequal; the gold is refused at loading | most checkers pay "" for "" |
| `10%` and `10` | equal | gold answers of GSM8K and MATH omit the sign if the question asks for percent |
| `10%` and `0.1` | equal | the meaning of the sign; `300%` and `3` are unequal, most often a slip (`task.percent`) |
| `0.1\overline{6}` and `1/6` | equal | a period is exact |
| `0.333333` and `1/3`, `1.0001` and `1` | unequal | rationals are compared exactly, without a tolerance |
| `1.414214` and `\sqrt{2}` | equal | an irrational number may be given to six decimals |
| `2/4` and `1/2`, `033` and `33`, `-0` and `0` | equal | the same number |
| `14 + 6` and `20` | unequal | left to do; a model that is paid for it repeats the question |
| `120/6` and `20` | equal | rationals are compared exactly: train on no bare divisions |
| `20 = 14 + 6`, `10^6`, `5!`, `\sqrt{400}` and their numbers | equal | the result, or one number's notation |
| `1 1/2`, `1\frac12` and `3/2` | equal | a mixed number; `1 3/2` is not one |
| `32, 349`, `32 349` and `32349` | equal | one number if the gold is one; for a gold list it is a list |
| `1000,99` and `1000.99` | equal | a comma that does not group three digits is a decimal comma; `5,6` is not 56 |
| `+7` and `7` | equal | a sign before the number, also in "the answer is +7" |
| `10, 4, -2` and `4, 10, -2` | equal | a bare list or a set has no order |
| `(1, 3, 2)` and `(1, 2, 3)` | unequal | a tuple has one |
| `[-3, 2]` and `(-3, 2)` | unequal | closed and open |
| `1` and `1, 2` | unequal | a part is not the whole |
| `72 clips` and `72` | equal | the unit may be added or left out |
| `7:30 p.m.` and `7:30` | equal | as a unit; `7:30 p.m.` and `7:30 a.m.` are unequal |
| `5 apples` and `5 oranges`, `42 cents` and `$42` | unequal | another unit |
| `42 million`, `42 or 43`, `42x` and `42` | unequal | the words change the number |
| `42 million` and `42,000,000`, `3 dozen` and `36` | equal | the same number |
| `x = 5` and `5` | equal | the value counts; `x = 5` and `y = 5` are unequal |
| `x = 1, y = 2` and `x = 2, y = 1` | unequal | the names assign the values |
| `x + y = 0` and `x - y = 0` | unequal | equations are compared as a whole, never by one side |
| `x < -1 or x > 1`, `(-\infty, -1) \cup (1, \infty)`, `\{x \mid ...\}` | equal | the same numbers satisfy them |
| `x > 1, x < 5` and `(1, 5)` | equal | a comma means both, and either if nothing satisfies both |
| `x \equiv 3 \pmod 7` and `x = 10 (mod 7)` | equal | the same residues; the name may be left out |
| `\langle 1, 2 \rangle` and `(1, 2)`; `[[1, 2], [3, 4]]` and its matrix | equal | another notation |
| `\cos 60^\circ` and `1/2`; `60^\circ` and `60` | equal | inside a function a degree is a factor, elsewhere a unit |
| `\frac{1}{2010!}` and `\frac{1}{2012!}` | unequal | numbers without decimals are equal or not, however small |
| `1112_3` and `1122_3`, `12_3` and `12_4` | unequal | digits and base count; a gold's base may be left out |
| `(C)`, `C.` and `C`; `Yes` and `yes` | equal | a choice is its letter, words have no case |
| `(B) 12` and `B`, `(B) 12` and `12` | equal | an option is its letter or its text |
| `(B) 12` and `(B) 13`, `(A) 12` and `(B) 12` | unequal | if both are given, both count |
| `\frac{2}{3} \approx 0.667` and `2/3`, and `0.667` | equal | exact, and rightly rounded; `5 \approx 7` is not 7 |
| `１２`, `1e3` and `12`, `1000` | unequal | not a requested notation |

A verdict that takes more than `CPU_LIMIT_S` of CPU time is False and counted as late: see `pool.py`.

Decided in `extract.py`: the answer is after the last `</think>`, `<answer>` tags are removed, the last box counts
(`task.boxes`).
"""

import re
import threading
from functools import lru_cache

from lowmem_rl.errors import TaskError
from lowmem_rl.verify.equal import Percent, compare_exactly
from lowmem_rl.verify.expression import image_of
from lowmem_rl.verify.normalize import LONGEST_ANSWER, normal_form
from lowmem_rl.verify.pool import is_available, pool
from lowmem_rl.verify.values import Expression, value_of

_DEEPEST = 20
_LATEX = re.compile(r"[ -~]+")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\\degree\s?")
_NAME = re.compile(r"(?<![\\A-Za-z])((?:arc)?(?:sin|cos|tan)|sec|csc|cot|ln|log|max|min|gcd)(?![A-Za-z])")
_CONNECTIVE = re.compile(r"\s*\\(?:lor|land)\s*")
_BRACE = re.compile(r"\\[{}\\]|([{}])")


def verify(given: str, gold: str, percent: Percent = "both") -> bool:
    """Returns whether `given` equals the gold answer.

    `percent` says what a percentage equals if the other answer has no sign.

    If exact comparison cannot decide, Math-Verify does in a worker process; without Math-Verify only the same text is
    equal. A verdict that takes too long is False, and counted. Raises `RewardError` if a worker crashed on the answer.
    """
    verdict = compare_exactly(given, gold, percent)
    if verdict is None and (verdict := _same_by_algebra(given, gold)) is None:
        _LATE.add()
    return verdict or False


def late_verdicts() -> int:
    """Returns how many verdicts of this process were False only because they took too long, repeated ones repeatedly.

    What they are is not known: a caller that reports verdicts also reports how many of them were late.
    """
    return _LATE.count


class _Tally:
    def __init__(self) -> None:
        self.count, self._lock = 0, threading.Lock()

    def add(self) -> None:
        with self._lock:
            self.count += 1


_LATE = _Tally()


def check_gold(gold: str) -> None:
    """Raises `TaskError` if no completion could rightly match a gold answer: it is empty, too long or malformed.

    If it needs symbolic algebra, the workers start to load, so that they are ready for the first verdict.
    """
    answer = normal_form(gold)
    if answer is None:
        what = f"is longer than {LONGEST_ANSWER} characters" if len(gold) > LONGEST_ANSWER else "is empty"
    elif not answer.text.isprintable():
        what = "holds control characters"
    elif _depth(answer.text) is None:
        what = "has braces that do not match"
    else:
        if isinstance(value_of(answer.text), Expression) and image_of(answer.text) is None and is_available():
            pool()
        return
    raise TaskError(f"The gold answer {gold[:60]!r} {what}.", hint="Leave the row out, or fix its answer.")


@lru_cache(maxsize=4096)
def _same_by_algebra(given: str, gold: str) -> bool | None:
    """Asks a worker once for each pair, so that a group that repeats a hostile answer waits only once. None if late."""
    left, right = normal_form(given), normal_form(gold)
    if left is None or right is None or not (_is_fit(left.text) and _is_fit(right.text)) or not is_available():
        return False
    one, other = _for_algebra(right.text), _for_algebra(left.text)
    return one == other or pool().same(one, other)


def _for_algebra(text: str) -> str:
    """Returns a text in the LaTeX that Math-Verify reads."""
    text = _NAME.sub(r"\\\1", _DEGREES.sub(r"(\\frac{\1\\pi}{180})", text))
    return _CONNECTIVE.sub(", ", text)


def _is_fit(text: str) -> bool:
    depth = _depth(text)
    return _LATEX.fullmatch(text) is not None and depth is not None and depth <= _DEEPEST


def _depth(text: str) -> int | None:
    """Returns how deep the braces are nested, or None if they do not match."""
    depth = deepest = 0
    for brace in filter(None, _BRACE.findall(text)):
        depth += 1 if brace == "{" else -1
        deepest = max(deepest, depth)
        if depth < 0:
            return None
    return deepest if depth == 0 else None
