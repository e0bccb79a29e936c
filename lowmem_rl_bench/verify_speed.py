"""Our verdicts and Math-Verify's: on numbers of known value, near misses, cases labeled by hand, and their speed.

Math-Verify runs as its README shows, in this process: gold and answer parsed, then verified, LaTeX between `$`.
Each side sees every pair once, so no cache helps; imports and the start of our workers are not in the times.
"""

import logging
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from typing import Any

from lowmem_rl._version import __version__
from lowmem_rl.errors import SetupError
from lowmem_rl.verify import verify
from lowmem_rl.verify.equal import compare_exactly
from lowmem_rl.verify.extract import lenient_answer
from lowmem_rl.verify.pool import is_available
from lowmem_rl_bench import verify_pairs
from lowmem_rl_bench.verify_cases import CASES
from lowmem_rl_bench.verify_pairs import AnswerPair

_Verifier = Callable[[str, str], bool]
"""Takes (given, gold) and returns whether they are equal."""


def measure(scale: float = 1.0) -> dict[str, Any]:
    """Returns the record, from `scale` times as many pairs. Raises `SetupError` without Math-Verify.

    At full scale: 20,000 pairs for the agreement, 5,000 near misses, 1,000 of each kind for the times; two minutes.
    """
    theirs = _math_verify()
    return {
        "date": date.today().isoformat(),
        "machine": _machine(),
        "agreement": _agreement(verify_pairs.rational_pairs(round(20_000 * scale)), theirs),
        "near_misses": near_misses(verify_pairs.near_misses(round(5_000 * scale))),
        "cases": _labeled_cases(theirs),
        "throughput": _throughputs(round(1_000 * scale), theirs),
    }


def _math_verify() -> _Verifier:
    """Returns Math-Verify, warmed up. Raises `SetupError` if it is missing."""
    if not is_available():
        raise SetupError("Math-Verify is not installed.", hint="Install it with: pip install 'lowmem-rl[train]'")
    from math_verify import parse
    from math_verify import verify as math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)

    def theirs(given: str, gold: str) -> bool:
        return bool(math_verify(parse(gold), parse(given)))

    theirs("$x^2$", "$x$")
    return theirs


def _agreement(pairs: Sequence[AnswerPair], theirs: _Verifier) -> dict[str, Any]:
    """Returns how often the fast path and Math-Verify agree with exact arithmetic, and where they differ."""
    rows = [
        (pair, compare_exactly(pair.given, pair.gold), theirs(_in_math(pair.given), _in_math(pair.gold)))
        for pair in pairs
    ]
    return {
        "pairs": len(rows),
        "equal_pairs": sum(pair.equal for pair in pairs),
        "fast_path_agrees_with_exact_arithmetic": sum(ours is pair.equal for pair, ours, _ in rows),
        "math_verify_agrees_with_exact_arithmetic": sum(other == pair.equal for pair, _, other in rows),
        "both_agree": sum(ours is other for _, ours, other in rows),
        "disagreements_by_who_is_right": dict(Counter(_who(*row) for row in rows if row[1] is not row[2])),
        "disagreements": [
            f"{pair.given} for {pair.gold}: {'equal' if pair.equal else 'unequal'}, {_who(pair, ours, other)} right"
            for pair, ours, other in rows
            if ours is not other
        ],
    }


def near_misses(pairs: Sequence[AnswerPair]) -> dict[str, Any]:
    """Returns how many near misses of each kind are paid in any of six forms, without the few that are right."""
    wrong = [pair for pair in pairs if not pair.equal]
    paid = [(pair, form) for pair in wrong for form in _completions(pair.given) if is_paid(form, pair.gold)]
    return {
        "near_misses": len(wrong),
        "by_kind": dict(Counter(pair.kind for pair in wrong)),
        "paid": [[form, pair.gold] for pair, form in paid],
    }


def _completions(answer: str) -> list[str]:
    """Returns an answer in six forms: boxed, ####, sentence, units, LaTeX, alone."""
    return [
        f"So it is \\boxed{{{answer}}}.",
        f"That is all.\n#### {answer}",
        f"The answer is {answer}.",
        f"The final answer is {answer}\\text{{ km}}.",
        f"Hence \\[ x = {answer} \\]",
        answer,
    ]


def is_paid(completion: str, gold: str) -> bool:
    """Returns whether a completion earns the reward if it is read leniently."""
    given = lenient_answer(completion)
    return given is not None and verify(given, gold)


def _labeled_cases(theirs: _Verifier) -> dict[str, Any]:
    """Returns both sides' counts on the cases labeled by hand, and each case that one side gets wrong."""
    rows = [
        (gold, text, right, is_paid(text, gold), theirs(text, f"${gold.strip('$')}$")) for gold, text, right in CASES
    ]
    return {
        "cases": len(rows),
        "right": sum(right for _, _, right, _, _ in rows),
        "ours": _counts([(right, ours) for _, _, right, ours, _ in rows]),
        "math_verify": _counts([(right, other) for _, _, right, _, other in rows]),
        "errors": [
            {"gold": gold, "completion": text, "right": right, "ours": ours, "math_verify": other}
            for gold, text, right, ours, other in rows
            if ours != right or other != right
        ],
    }


def _throughputs(count: int, theirs: _Verifier) -> dict[str, Any]:
    """Returns each side's mean time for a verdict, in microseconds, and the ratio, by kind of answer."""
    verify("\\sin(x)", "\\cos(x)")  # waits until the workers have started
    samples = {
        "gsm8k": verify_pairs.gsm8k_pairs(count),
        "mix": verify_pairs.mixed_pairs(count),
        "fractions": [p for p in verify_pairs.rational_pairs(10 * count, seed=1) if p.kind == "fraction"][:count],
        "sequences": verify_pairs.sequence_pairs(count, seed=1),
        "symbolic": verify_pairs.symbolic_pairs(count, seed=1),
        "symbolic_in_workers": [
            p for p in verify_pairs.symbolic_pairs(count, seed=2) if compare_exactly(p.given, p.gold) is None
        ],
    }
    return {name: _both_times(pairs, theirs) for name, pairs in samples.items()}


def _both_times(pairs: Sequence[AnswerPair], theirs: _Verifier) -> dict[str, Any]:
    pairs = list({(pair.given, pair.gold): pair for pair in pairs}.values())
    ours_us, ours = _timed(verify, [(pair.given, pair.gold) for pair in pairs])
    theirs_us, others = _timed(theirs, [(_in_math(pair.given), _in_math(pair.gold)) for pair in pairs])
    return {
        "pairs": len(pairs),
        "ours_us": round(ours_us, 1),
        "math_verify_us": round(theirs_us, 1),
        "ratio": round(theirs_us / ours_us, 1),
        "ours_wrong": sum(v != pair.equal for v, pair in zip(ours, pairs, strict=True)),
        "math_verify_wrong": sum(v != pair.equal for v, pair in zip(others, pairs, strict=True)),
    }


def _timed(verifier: _Verifier, answers: Sequence[tuple[str, str]]) -> tuple[float, list[bool]]:
    """Returns the mean microseconds per verdict, and the verdicts."""
    began = time.perf_counter()
    verdicts = [verifier(given, gold) for given, gold in answers]
    return (time.perf_counter() - began) / len(answers) * 1e6, verdicts


def _in_math(answer: str) -> str:
    """Returns LaTeX between dollars, as Math-Verify needs it; it reads a plain answer better as it is."""
    is_latex = any(mark in answer for mark in "\\^_([{=<>") and "$" not in answer
    return f"${answer}$" if is_latex else answer


def _counts(rows: Sequence[tuple[bool, bool]]) -> dict[str, int]:
    return {
        "true_positives": sum(right and verdict for right, verdict in rows),
        "false_positives": sum(verdict and not right for right, verdict in rows),
    }


def _who(pair: AnswerPair, ours: bool | None, theirs: bool) -> str:
    if ours is pair.equal:
        return "both are" if theirs is pair.equal else "ours is"
    return "Math-Verify is" if theirs is pair.equal else "neither is"


def _machine() -> dict[str, Any]:
    packages = ("math-verify", "latex2sympy2_extended", "sympy")
    return {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),  # of the minute before: above the cores, both sides wait
        "processor": _processor(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {"lowmem-rl": __version__, **{name: version(name) for name in packages}},
    }


def _processor() -> str:
    if not sys.platform.startswith("linux"):
        return platform.processor()
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def describe(record: dict[str, Any]) -> str:
    """Returns the record as a page of text."""
    agree, misses, cases = record["agreement"], record["near_misses"], record["cases"]
    speeds = [
        f"  {name:<20}{row['ours_us']:>10.1f}{row['math_verify_us']:>14.1f}{row['ratio']:>9.1f}x"
        for name, row in record["throughput"].items()
    ]
    ours, theirs = cases["ours"], cases["math_verify"]
    return "\n".join(
        [
            f"{agree['pairs']} pairs of numbers: the fast path agrees with exact arithmetic on "
            f"{agree['fast_path_agrees_with_exact_arithmetic']}, Math-Verify on "
            f"{agree['math_verify_agrees_with_exact_arithmetic']}",
            f"{misses['near_misses']} near misses, in six forms each: {len(misses['paid'])} paid",
            f"{cases['cases']} cases labeled by hand, {cases['right']} of them right: true and false positives "
            f"{ours['true_positives']} and {ours['false_positives']} (ours), "
            f"{theirs['true_positives']} and {theirs['false_positives']} (Math-Verify)",
            "microseconds a verdict       ours   Math-Verify    ratio",
            *speeds,
        ]
    )
