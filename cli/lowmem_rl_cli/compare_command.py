"""`lowmem-rl compare`: which of several runs learnt more, and what they were set to differently."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lowmem_rl.reports.compare import UNSET, Comparison, RunPair, compare_runs
from lowmem_rl.reports.escape import one_line, p_text, percent, points
from lowmem_rl.reports.sections.curves import CurvePoint, learning_curve
from lowmem_rl.reports.sections.results import share
from lowmem_rl.stats import PairedDifference
from lowmem_rl.storage.run_dir import Row
from lowmem_rl_cli import console
from lowmem_rl_cli.text_page import BOLD, DIM, GREEN, RED, TextPage, stdout_page

LONGEST_VALUE = 40


def compare_command(runs: Sequence[Path], out: Path | None, *, as_json: bool) -> None:
    """Prints the comparison of runs, or writes it as a page and prints where it is."""
    comparison = compare_runs(runs)
    if out is not None:
        from lowmem_rl.reports.compare_page import write_comparison

        console.show(str(write_comparison(comparison, out)))
    elif as_json:
        console.show_json(comparison.to_json())
    else:
        console.show("\n".join(_lines(comparison, stdout_page())))


def _lines(told: Comparison, page: TextPage) -> Iterator[str]:
    result = told.evaluations[0].result
    yield from page.fold(f"{one_line(result.get('task'))}, {one_line(result.get('split'))} items, greedy", "", "", BOLD)
    yield from page.heading("Results", "each run's last evaluation, with 95 % intervals")
    head = ("run", "step", "items", "answer anywhere", "asked form")
    yield from page.table([_result_row(*pair) for pair in zip(told.names, told.results, strict=True)], "lrrll", head)
    adjusted = f"p-values are adjusted for {len(told.pairs)} comparisons" if len(told.pairs) > 1 else ""
    yield from page.heading("Against the first", "; ".join(filter(None, ["the same items, paired", adjusted])))
    steps = dict(zip(told.names, (result["step"] for result in told.results), strict=True))
    for pair in told.pairs:
        yield from _pair_lines(pair, steps, page)
    yield from _curve_lines(told, page)
    yield from _difference_lines(told, page)


def _result_row(name: str, result: Row) -> tuple[str, ...]:
    shares = (share(result, key) for key in ("pass_at_1", "strict_pass_at_1"))
    return (name, str(result["step"]), one_line(result.get("num_examples", "-")), *shares)


def _pair_lines(pair: RunPair, steps: Mapping[str, int], page: TextPage) -> Iterator[str]:
    colour = DIM if not pair.is_distinguishable else GREEN if pair.lenient.gain > 0 else RED
    apart = steps[pair.first] != steps[pair.second]
    first, second = (f"{run} at step {steps[run]}" if apart else run for run in (pair.first, pair.second))
    yield from page.fold(f"{second} against {first}: {_judgement(pair)}", "  ", "  ", BOLD, colour)
    yield from page.fold(f"answer anywhere: {_difference(pair.lenient, pair.lenient_p)}", "    ", "  ")
    yield from page.fold(f"asked form: {_difference(pair.strict, pair.strict_p)}", "    ", "  ")


def _judgement(pair: RunPair) -> str:
    if not pair.is_distinguishable:
        return "not distinguishable"
    return "better" if pair.lenient.gain > 0 else "worse"


def _difference(found: PairedDifference, p_value: float) -> str:
    counts = f"{found.won} items won, {found.lost} lost of {found.num_items}"
    return f"{points(found)}, {p_text(p_value)}; {counts}"


def _curve_lines(told: Comparison, page: TextPage) -> Iterator[str]:
    """Yields where each run stood at its evaluations; every step is in the JSON."""
    yield from page.heading("On the way", "held-out accuracy by step, tokens and time in training")
    rows = [
        (name, str(p.step), "-" if p.tokens is None else f"{p.tokens:,}", f"{p.seconds / 60:.1f}", *_point_shares(p))
        for name, record in zip(told.names, told.records, strict=True)
        for p in learning_curve(record)
        if p.pass_at_1 is not None
    ]
    yield from page.table(rows, "lrrrrr", ("run", "step", "tokens", "minutes", "answer anywhere", "asked form"))


def _point_shares(point: CurvePoint) -> tuple[str, str]:
    return percent(point.pass_at_1), percent(point.strict_pass_at_1)


def _difference_lines(told: Comparison, page: TextPage) -> Iterator[str]:
    if not told.differences:
        yield from page.heading("Settings", "the same in all")
        return
    yield from page.heading("Settings that differ")
    rows = [(one_line(key), *map(_value, values)) for key, values in told.differences.items()]
    yield from page.table(rows, "l" * (1 + len(told.names)), ("", *told.names))


def _value(value: object) -> str:
    if value in (None, UNSET):
        return UNSET
    return one_line(value if isinstance(value, str) else json.dumps(value), LONGEST_VALUE)
