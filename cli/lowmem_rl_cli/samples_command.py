"""`lowmem-rl samples`: what the model wrote in training, in the terminal, and what it says to a prompt now."""

import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from lowmem_rl.reports.escape import one_line, shown
from lowmem_rl.reports.run_record import read_record
from lowmem_rl.reports.sample_filter import SampleFilter, best_beside_worst, filter_samples
from lowmem_rl.reports.sections.completions import scores_text
from lowmem_rl.storage.run_dir import Row
from lowmem_rl_cli import console
from lowmem_rl_cli.text_page import BOLD, DIM, INDENT, YELLOW, TextPage, stdout_page

if TYPE_CHECKING:
    from lowmem_rl.engine.hf_generate import Completion
    from lowmem_rl.entrypoints.generate import PromptAnswers

NARROWEST_BESIDE = 60
"""Columns below which two completions stand below each other."""
BETWEEN = " │ "
LONGEST = 2000


def samples_command(run: Path, wanted: SampleFilter, *, limit: int, side_by_side: bool, as_json: bool) -> None:
    """Prints the samples that are wanted, the latest step first."""
    rows = filter_samples(read_record(run), wanted)
    if as_json:
        console.show_json(rows[:limit])
        return
    page = stdout_page()
    pairs = best_beside_worst(rows) if side_by_side else []
    found, noun = (len(pairs), "pairs") if side_by_side else (len(rows), "samples")
    blocks = [beside(*pair, page) for pair in pairs[:limit]] if side_by_side else [alone(r, page) for r in rows[:limit]]
    console.show("\n".join(line for block in blocks for line in block) or "No sample is like that.")
    if found > limit:
        console.say(f"{limit} of {found} {noun}; --limit shows more.")


def prompt_command(run: Path, prompt: str, *, samples: int | None, as_json: bool) -> None:
    """Loads a run's model and prints what it says to a prompt, without the adapter and with it."""
    from rich.console import Console

    from lowmem_rl.entrypoints.generate import ask
    from lowmem_rl_cli.live_view import view_for

    # Bound to the real stream: the libraries' talk is sent elsewhere meanwhile.
    view = view_for(Console(file=sys.stderr, highlight=False), f"{run}: a prompt", live=False)
    try:
        told = ask(run, prompt, samples=samples, listen=view.show)
    finally:
        view.close()
    if as_json:
        console.show_json(told.to_json())
    else:
        console.show("\n".join(_told(told, stdout_page())))


def _told(told: "PromptAnswers", page: TextPage) -> Iterator[str]:
    yield from page.fold(shown(told.prompt, 400), "", "", BOLD)
    how = "greedy" if told.greedy else "sampled as in training"
    for name, completions in (("base model", told.base), ("trained", told.trained)):
        for completion in completions:
            yield from page.heading(name, _about_completion(completion, how))
            yield from (INDENT + line for line in _folded(completion.text, page.columns - len(INDENT)))


def _about_completion(completion: "Completion", how: str) -> str:
    cut = ["cut off"] if completion.truncated else []
    return " · ".join([how, f"{completion.tokens} tokens", *cut])


def alone(row: Row, page: TextPage) -> Iterator[str]:
    """Yields the lines of one sample."""
    yield from _asked(row, page)
    yield from _about(row, page)
    yield from (INDENT + line for line in _lines(row, page.columns - len(INDENT)))


def beside(best: Row, worst: Row, page: TextPage) -> Iterator[str]:
    """Yields the lines of two samples of one prompt, side by side where there is room."""
    yield from _asked(best, page)
    if page.columns < NARROWEST_BESIDE:
        for row in (best, worst):
            yield from _about(row, page)
            yield from (INDENT + line for line in _lines(row, page.columns - len(INDENT)))
        return
    width = (page.columns - len(INDENT) - len(BETWEEN)) // 2
    columns = [[*wrap(_about_text(row), width), *_lines(row, width)] for row in (best, worst)]
    edge = BETWEEN if page.blocks else " | "
    for left, right in zip_longest(*columns, fillvalue=""):
        yield f"{INDENT}{left:<{width}}{edge}{right}".rstrip()


def _asked(row: Row, page: TextPage) -> Iterator[str]:
    yield from page.heading(f"step {row['step']}", one_line(row.get("example_id", "")))
    yield from page.fold(one_line(row.get("prompt", ""), 400), INDENT, "", BOLD)
    if row.get("answer"):
        yield from page.fold(f"answer: {one_line(row['answer'], 200)}", INDENT, "", DIM)


def _about(row: Row, page: TextPage) -> Iterator[str]:
    yield from page.fold(_about_text(row), INDENT, "", YELLOW if row.get("truncated") else DIM)


def _about_text(row: Row) -> str:
    tokens = [f"{row['tokens']} tokens"] if "tokens" in row else []
    cut = ["cut off"] if row.get("truncated") else []
    return " · ".join([f"reward {row['reward']:g}", *(" ".join(score) for score in scores_text(row)), *tokens, *cut])


def _lines(row: Row, width: int) -> Iterator[str]:
    yield from _folded(row["completion"], width)


def _folded(completion: str, width: int) -> Iterator[str]:
    """Yields a completion's own lines, long ones folded without losing a space."""
    for line in shown(completion, LONGEST).expandtabs().split("\n"):
        yield from wrap(line, width, replace_whitespace=False, drop_whitespace=False, break_on_hyphens=False) or [""]
