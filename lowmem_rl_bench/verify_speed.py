"""Our verdicts beside Math-Verify's: on numbers of known truth, on near-misses, on cases judged by hand, and in time.

Math-Verify runs as its README shows, in this process: gold and answer parsed, then verified, LaTeX between `$`.
Both sides see each pair once, so no cache helps either; its import and our workers' start are not in the times.
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

Judge = Callable[[str, str], bool]
"""Says of (given, gold) whether they are equal."""


def measure(scale: float = 1.0) -> dict[str, Any]:
    """Returns the record, made of `scale` times as many pairs. Raises `SetupError` without Math-Verify.

    At full scale: 20,000 pairs for the agreement, 5,000 near-misses, 1,000 of each kind for the times; two minutes.
    """
    theirs = math_verify_judge()
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "agreement": agreement(verify_pairs.rational_pairs(round(20_000 * scale)), theirs),
        "near_misses": near_misses(verify_pairs.near_misses(round(5_000 * scale))),
        "cases": judged_cases(theirs),
        "throughput": throughputs(round(1_000 * scale), theirs),
    }


def math_verify_judge() -> Judge:
    """Returns Math-Verify as a judge, warmed up. Raises `SetupError` where it is missing."""
    if not is_available():
        raise SetupError("Math-Verify is not installed.", hint="Install it with: pip install 'lowmem-rl[train]'")
    from math_verify import parse
    from math_verify import verify as math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)

    def judge(given: str, gold: str) -> bool:
        return bool(math_verify(parse(gold), parse(given)))

    judge("$x^2$", "$x$")
    return judge


def agreement(pairs: Sequence[AnswerPair], theirs: Judge) -> dict[str, Any]:
    """Returns how often fast path and Math-Verify agree with exact arithmetic, and each pair on which they differ."""
    rows = [(pair, compare_exactly(pair.given, pair.gold), _ask(theirs, pair)) for pair in pairs]
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
    """Returns how many near-misses are paid in any of six forms, of each kind; the few that are right are left out."""
    wrong = [pair for pair in pairs if not pair.equal]
    paid = [(pair, form) for pair in wrong for form in completions(pair.given) if is_paid(form, pair.gold)]
    return {
        "near_misses": len(wrong),
        "by_kind": dict(Counter(pair.kind for pair in wrong)),
        "paid": [[form, pair.gold] for pair, form in paid],
    }


def completions(answer: str) -> list[str]:
    """Returns the six forms in which an answer is written: boxed, ####, sentence, units, LaTeX, alone."""
    return [
        f"So it is \\boxed{{{answer}}}.",
        f"That is all.\n#### {answer}",
        f"The answer is {answer}.",
        f"The final answer is {answer}\\text{{ km}}.",
        f"Hence \\[ x = {answer} \\]",
        answer,
    ]


def is_paid(completion: str, gold: str) -> bool:
    """Says whether the lenient reading of a completion earns the reward."""
    given = lenient_answer(completion)
    return given is not None and verify(given, gold)


def judged_cases(theirs: Judge) -> dict[str, Any]:
    """Returns both sides' counts on the cases judged by hand, and each case that one of them gets wrong."""
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


def throughputs(count: int, theirs: Judge) -> dict[str, Any]:
    """Returns the mean time of a verdict of both sides, in microseconds, and their ratio, by kind of answer."""
    verify("\\sin(x)", "\\cos(x)")  # the workers have started
    samples = {
        "gsm8k": verify_pairs.gsm8k_pairs(count),
        "mix": verify_pairs.mixed_pairs(count),
        "fractions": [p for p in verify_pairs.rational_pairs(10 * count, seed=1) if p.kind == "fraction"][:count],
        "sequences": verify_pairs.sequence_pairs(count, seed=1),
        "symbolic": verify_pairs.symbolic_pairs(count, seed=1),
        "symbolic_in_workers": [pair for pair in verify_pairs.symbolic_pairs(count, seed=2) if _needs_worker(pair)],
    }
    return {name: _side_by_side(_distinct(pairs), theirs) for name, pairs in samples.items()}


def _needs_worker(pair: AnswerPair) -> bool:
    return compare_exactly(pair.given, pair.gold) is None


def _side_by_side(pairs: Sequence[AnswerPair], theirs: Judge) -> dict[str, Any]:
    ours_us, ours = _timed(verify, pairs)
    theirs_us, others = _timed(lambda given, gold: theirs(_in_math(given), _in_math(gold)), pairs)
    return {
        "pairs": len(pairs),
        "ours_us": round(ours_us, 1),
        "math_verify_us": round(theirs_us, 1),
        "ratio": round(theirs_us / ours_us, 1),
        "ours_wrong": sum(v != pair.equal for v, pair in zip(ours, pairs, strict=True)),
        "math_verify_wrong": sum(v != pair.equal for v, pair in zip(others, pairs, strict=True)),
    }


def _timed(judge: Judge, pairs: Sequence[AnswerPair]) -> tuple[float, list[bool]]:
    began = time.perf_counter()
    verdicts = [judge(pair.given, pair.gold) for pair in pairs]
    return (time.perf_counter() - began) / len(pairs) * 1e6, verdicts


def _distinct(pairs: Sequence[AnswerPair]) -> list[AnswerPair]:
    return list({(pair.given, pair.gold): pair for pair in pairs}.values())


def _ask(theirs: Judge, pair: AnswerPair) -> bool:
    return theirs(_in_math(pair.given), _in_math(pair.gold))


def _in_math(answer: str) -> str:
    """Returns an answer in LaTeX between dollars, as Math-Verify asks for; a plain one is read better as it is."""
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


def machine() -> dict[str, Any]:
    """Returns where the record was made, and with which versions."""
    packages = ("math-verify", "latex2sympy2_extended", "sympy")
    return {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),  # of the minute before: above the cores, both sides wait for their turn
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
            f"{misses['near_misses']} near-misses, in six forms each: {len(misses['paid'])} paid",
            f"{cases['cases']} cases judged by hand, {cases['right']} of them right: true and false positives "
            f"{ours['true_positives']} and {ours['false_positives']} (ours), "
            f"{theirs['true_positives']} and {theirs['false_positives']} (Math-Verify)",
            "microseconds a verdict       ours   Math-Verify    ratio",
            *speeds,
        ]
    )
