"""The page of `profile --score`: the errors of the estimate against measured rows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lowmem_rl.memory.accuracy import TOLERATED_UNDER, AccuracyScore
from lowmem_rl.reports.escape import shown
from lowmem_rl_cli.text_page import BOLD, GREEN, NARROWEST_CELL, RED, YELLOW, TextPage

HEAD = ("measured", "rows", "mean", "worst", "under", "worst row")
_FIGURES = 62
"""Columns that the cells of `HEAD` take, with their gaps."""
GROUPS = {"by_stack": "By stack, loss and method", "by_card": "By card", "by_source": "By source"}


def render(score: AccuracyScore, page: TextPage) -> str:
    """Returns the page."""
    return "\n".join(_lines(score.summary, page))


def _lines(summary: Mapping[str, Any], page: TextPage) -> Iterator[str]:
    wrong = summary["out_of_memory"]["called_fits"] or summary["verdicts"]["completed"]["does-not-fit"]
    colour = RED if wrong else YELLOW if _under(summary["errors"]) else GREEN
    yield from page.fold(_headline(summary), "", "", BOLD, colour)
    for note in summary["unvalidated"]:
        yield from page.fold(f"{note[:1].upper()}{note[1:]}.", "", "", YELLOW)
    beyond = f"under: rows predicted more than {100 * TOLERATED_UNDER:.0f} % too low"
    yield from page.heading("Errors", f"of the expected value, predicted over measured less one; {beyond}")
    yield from page.table(list(_rows("all rows", summary["errors"])), "llrrrrl", ("", *HEAD))
    yield from _named("too low", _under(summary["errors"]), page)
    if varying := summary["varying"]:
        yield from page.heading("Varying lengths", "not counted above: their order decides what the pool keeps")
        yield from page.table(list(_rows("all rows", varying)), "llrrrrl", ("", *HEAD))
    for key, title in GROUPS.items():
        yield from page.heading(title)
        rows = [row for name, errors in summary[key].items() for row in _rows(_shortened(name, page), errors)]
        yield from page.table(rows, "llrrrrl", ("", *HEAD))
    yield from _verdicts(summary, page)
    if left_out := summary["left_out"]:
        yield from page.heading("Left out", f"{len(left_out)} rows")
        for reason in dict.fromkeys(left_out.values()):
            yield from _named(reason, [row for row, why in left_out.items() if why == reason], page)


def _headline(summary: Mapping[str, Any]) -> str:
    errors = ", ".join(f"{name} {_percent(found['mean_error'])}" for name, found in summary["errors"].items())
    load = f" ({len(summary['load_alone'])} of them by their load alone)" if summary["load_alone"] else ""
    of = f"{summary['scored']} of {summary['rows']} rows are scored{load}"
    rounded = "; an error within a source's own rounding counts as none" if summary["rounded"] else ""
    return f"{of}; mean error: {errors}{rounded}." if errors else f"{of}."


def _rows(name: str, errors: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for measured, found in errors.items():
        mean, worst = _percent(found["mean_error"]), f"{100 * found['worst_error']:+.1f} %"
        yield (
            name,
            measured,
            str(found["rows"]),
            mean,
            worst,
            str(len(found["under_predicted"])),
            shown(found["worst_row"]),
        )
        name = ""


def _verdicts(summary: Mapping[str, Any], page: TextPage) -> Iterator[str]:
    verdicts, bounded = summary["verdicts"], summary["bounded"]
    yield from page.heading("Verdicts", "rows by the end of the run and by verdict")
    counts = [(end, *(str(len(rows)) for rows in found.values())) for end, found in verdicts.items()]
    yield from page.table(counts, "lrrr", ("", *verdicts["completed"]))
    yield from _named("out of memory, called fitting", summary["out_of_memory"]["called_fits"], page)
    yield from _named("completed, called not fitting", verdicts["completed"]["does-not-fit"], page)
    yield from _named("measured above the upper value", summary["above_upper"], page)
    if summary["rounded"]:
        yield from page.heading("Rounded by their source", "errors are those beyond half its step")
        yield from _named("rows", summary["rounded"], page)
    yield from page.heading("Rows whose lengths are limits", f"{bounded['rows']} rows: the peak can only be bounded")
    yield from _named("outside the bounds", bounded["outside"], page, none="all inside the bounds")


def _named(what: str, rows: Sequence[str], page: TextPage, none: str = "") -> Iterator[str]:
    text = f"{what} ({len(rows)}): {', '.join(rows)}" if rows else none
    yield from page.fold(shown(text, len(text)), "  ", "  ")


def _under(errors: Mapping[str, Any]) -> list[str]:
    return sorted({row for found in errors.values() for row in found["under_predicted"]})


def _shortened(source: str, page: TextPage) -> str:
    """Returns an address without its common prefix; if it is too long for the table, its owner and its last part."""
    text = shown(source).removeprefix("https://").removeprefix("github.com/")
    room = max(page.columns - _FIGURES, NARROWEST_CELL)
    if len(text) > room:
        text = f"{text.partition('/')[0]}/.../{text.rpartition('/')[2]}"
    return text if len(text) <= room else f"{text[: room - 3]}..."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
