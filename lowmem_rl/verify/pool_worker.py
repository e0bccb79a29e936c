"""A symbolic worker: it imports Math-Verify once, and forks a child that computes, again after each that ended.

Neither torch nor the caller's script is in this process, so a child is cheap and nothing of the caller is run again.
"""

import contextlib
import mmap
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

from lowmem_rl.verify.pool import DIED, LATE
from lowmem_rl.workers import Requests

MEMORY_LIMIT_BYTES = 2 << 30
"""Of address space, for one child; Math-Verify and its libraries take a fifth of it."""

WARM_UP = [("x^2+2x+1", "(x+1)^2"), ("[1,2)", "(1,2)"), ("\\sin(x)", "\\cos(x)"), ("x=1", "y<2"), ("\\{1,2\\}", "1,2")]

Same = Callable[[str, str], bool]


def main() -> None:
    """Has children answer requests until the caller is gone, or until one dies without a request."""
    requests, same = Requests(), load_math_verify()
    for pair in WARM_UP:  # each child inherits filled caches
        same(*pair)
    is_busy = mmap.mmap(-1, 1)  # shared with the children
    while True:
        pid = os.fork()
        if pid == 0:
            _serve(requests, same, is_busy)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if not is_busy[0]:
            return
        is_busy[0] = 0
        requests.answer(LATE if os.WTERMSIG(status) in {signal.SIGPROF, signal.SIGALRM} else DIED)


def _serve(requests: Requests, same: Same, is_busy: mmap.mmap) -> None:
    with contextlib.suppress(OSError, ValueError):  # macOS refuses the first
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while request := requests.read():
        gold, given, cpu_s, wall_s = request
        is_busy[0] = 1
        _set_timers(cpu_s, wall_s)
        verdict = same(gold, given)
        _set_timers(0, 0)
        is_busy[0] = 0
        requests.answer(verdict)


def _set_timers(cpu_s: float, wall_s: float) -> None:
    """Sets the limits; the signal of either ends the process, also one that is deep in C."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_REAL, wall_s)


def load_math_verify() -> Same:
    """Returns a function of two LaTeX texts, the gold one first, that returns whether they are equal.

    Only Math-Verify's LaTeX reader is used: its other one hands text to Python's `eval` (sympy.parse_expr).
    """
    import logging

    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable()
    config = [LatexExtractionConfig()]

    def read(text: str) -> Any:
        return parse(f"${text}$", config, fallback_mode="no_fallback", parsing_timeout=None)

    def same(gold: str, given: str) -> bool:
        one, other = read(gold), read(given)
        return bool(verify(one, other, allow_set_relation_comp=True, timeout_seconds=None)) and not _differ(one, other)

    return same


def _differ(gold: list[Any], given: list[Any]) -> bool:
    """Returns whether two numbers without decimals are certainly not the same one, however small both are.

    Math-Verify's `evalf(chop=True)` takes tiny numbers for 0, and so e^{-100} for e^{-101}.
    """
    from sympy import Expr, Float, Number
    from sympy.core.evalf import PrecisionExhausted

    if not (gold and given and isinstance(gold[0], Expr) and isinstance(given[0], Expr)):
        return False
    difference = gold[0] - given[0]
    if difference.free_symbols or gold[0].has(Float) or given[0].has(Float):
        return False
    try:
        number = difference.evalf(10, strict=True)
    except PrecisionExhausted:  # it may be 0
        return False
    return isinstance(number, Number) and number.is_nonzero is True


if __name__ == "__main__":
    main()
