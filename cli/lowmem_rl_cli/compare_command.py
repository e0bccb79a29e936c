"""`lowmem-rl compare`: which of several runs learned more, and the settings that differ."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from lowmem_rl.reports.compare import UNSET, Comparison, RunPair, compare_runs
from lowmem_rl.reports.escape import one_line, p_text, percent, points
from lowmem_rl.reports.sections.curves import learning_curve
from lowmem_rl.reports.sections.results import share
from lowmem_rl.stats import PairedDifference
from lowmem_rl.storage.run_dir import Row
from lowmem_rl_cli import console
from lowmem_rl_cli.text_page import BOLD, DIM, GREEN, RED, TextPage, stdout_page

_LONGEST_VALUE = 40
_COLOURS = {"better": GREEN, "worse": RED, "not distinguishable": DIM}


def compare_command(runs: Sequence[Path], out: Path | None, *, as_json: bool) -> None:
    """Prints the comparison of runs, or writes it as a page and prints its path."""
    comparison = compare_runs(runs)
    if out is not None:
        from lowmem_rl.reports.compare_page import write_comparison

        console.show(str(write_comparison(comparison, out)))
    elif as_json:
        console.show_json(comparison.to_json())
    else:
        console.show("\n".join(_lines(comparison, stdout_page())))


def _lines(comparison: Comparison, page: TextPage) -> Iterator[str]:
    first, pairs = comparison.results[0], comparison.pairs
    title = f"{one_line(first.get('task'))}, {one_line(first.get('split'))} items, greedy"
    yield from page.fold(title, "", "", BOLD)
    yield from page.heading("Results", "each run's last evaluation, with 95 % intervals")
    rows = [
        (name, str(result["step"]), one_line(result.get("num_examples", "-")), *_shares(result))
        for name, result in zip(comparison.names, comparison.results, strict=True)
    ]
    yield from page.table(rows, "lrrll", ("run", "step", "items", "any format", "requested format"))
    adjusted = f"; p-values are adjusted for {len(pairs)} comparisons" if len(pairs) > 1 else ""
    yield from page.heading("Against the first", f"the same items, paired{adjusted}")
    for pair, result in zip(pairs, comparison.results[1:], strict=True):
        yield from _pair_lines(pair, (first["step"], result["step"]), page)
    yield from _curve_lines(comparison, page)
    yield from _setting_lines(comparison, page)


def _shares(result: Row) -> tuple[str, str]:
    return share(result, "pass_at_1"), share(result, "strict_pass_at_1")


def _pair_lines(pair: RunPair, steps: tuple[int, int], page: TextPage) -> Iterator[str]:
    runs = (pair.first, pair.second)
    if steps[0] != steps[1]:
        runs = (f"{pair.first} at step {steps[0]}", f"{pair.second} at step {steps[1]}")
    yield from page.fold(f"{runs[1]} against {runs[0]}: {pair.verdict}", "  ", "  ", BOLD, _COLOURS[pair.verdict])
    yield from page.fold(f"any format: {_difference(pair.lenient, pair.lenient_p)}", "    ", "  ")
    yield from page.fold(f"requested format: {_difference(pair.strict, pair.strict_p)}", "    ", "  ")


def _difference(found: PairedDifference, p_value: float) -> str:
    counts = f"{found.won} items won, {found.lost} lost of {found.num_items}"
    return f"{points(found)}, {p_text(p_value)}; {counts}"


def _curve_lines(comparison: Comparison, page: TextPage) -> Iterator[str]:
    """Yields the state of each run at its evaluations; every step is in the JSON."""
    yield from page.heading("During training", "held-out accuracy by step, tokens and time in training")
    rows = [
        (
            name,
            str(p.step),
            "-" if p.tokens is None else f"{p.tokens:,}",
            f"{p.seconds / 60:.1f}",
            percent(p.pass_at_1),
            percent(p.strict_pass_at_1),
        )
        for name, record in zip(comparison.names, comparison.records, strict=True)
        for p in learning_curve(record)
        if p.pass_at_1 is not None
    ]
    yield from page.table(rows, "lrrrrr", ("run", "step", "tokens", "minutes", "any format", "requested format"))


def _setting_lines(comparison: Comparison, page: TextPage) -> Iterator[str]:
    if not comparison.differences:
        yield from page.heading("Settings", "the same in all")
        return
    yield from page.heading("Settings that differ")
    rows = [(one_line(key), *map(_value, values)) for key, values in comparison.differences.items()]
    yield from page.table(rows, "l" * (1 + len(comparison.names)), ("", *comparison.names))


def _value(value: object) -> str:
    if value in (None, UNSET):
        return UNSET
    return one_line(value if isinstance(value, str) else json.dumps(value), _LONGEST_VALUE)
