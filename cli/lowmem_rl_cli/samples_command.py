"""`lowmem-rl samples`: what the model wrote in training, and its completion of a prompt now."""

import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from lowmem_rl.reports.escape import one_line, shown
from lowmem_rl.reports.run_record import read_record
from lowmem_rl.reports.sample_filter import SampleFilter, best_and_worst_of_prompts, filter_samples
from lowmem_rl.reports.sections.completions import scores_text
from lowmem_rl.storage.run_dir import Row
from lowmem_rl_cli import console
from lowmem_rl_cli.text_page import BOLD, DIM, INDENT, YELLOW, TextPage, stdout_page

if TYPE_CHECKING:
    from lowmem_rl.config.compose import ConfigLayer
    from lowmem_rl.entrypoints.generate import PromptAnswers

_NARROWEST = 60
"""Columns below which two completions are not side by side."""
_BETWEEN = " │ "
_LONGEST = 2000


def samples_command(run: Path, wanted: SampleFilter, *, limit: int, side_by_side: bool, as_json: bool) -> None:
    """Prints the samples that match, the latest step first."""
    rows = filter_samples(read_record(run), wanted)
    if as_json:
        console.show_json(rows[:limit])
        return
    page, pairs = stdout_page(), best_and_worst_of_prompts(rows) if side_by_side else []
    found, noun = (len(pairs), "pairs") if side_by_side else (len(rows), "samples")
    blocks = [_pair(*pair, page) for pair in pairs[:limit]] if side_by_side else [_one(r, page) for r in rows[:limit]]
    console.show("\n".join(line for block in blocks for line in block) or "No sample matches.")
    if found > limit:
        console.say(f"{limit} of {found} {noun}; --limit shows more.")


def prompt_command(
    run: Path, prompt: str, *, samples: int | None, places: "Sequence[ConfigLayer]", as_json: bool
) -> None:
    """Loads a run's model and prints its completions of a prompt, without the adapter and with it."""
    from rich.console import Console

    from lowmem_rl.entrypoints.generate import ask
    from lowmem_rl_cli.live_view import view_for

    # Bound to the real stream: the output of the libraries is redirected meanwhile.
    view = view_for(Console(file=sys.stderr, highlight=False), f"{run}: a prompt", live=False)
    try:
        answers = ask(run, prompt, samples=samples, places=places, listen=view.show)
    finally:
        view.close()
    if as_json:
        console.show_json(answers.to_json())
    else:
        console.show("\n".join(_answers(answers, stdout_page())))


def _answers(answers: "PromptAnswers", page: TextPage) -> Iterator[str]:
    yield from page.fold(shown(answers.prompt, 400), "", "", BOLD)
    how = "greedy" if answers.greedy else "sampled as in training"
    for name, completions in (("base model", answers.base), ("trained", answers.trained)):
        for completion in completions:
            cut = ["cut off"] if completion.truncated else []
            yield from page.heading(name, " · ".join([how, f"{completion.tokens} tokens", *cut]))
            yield from _indented(completion.text, page)


def _one(row: Row, page: TextPage) -> Iterator[str]:
    yield from _prompt(row, page)
    yield from _completion(row, page)


def _pair(best: Row, worst: Row, page: TextPage) -> Iterator[str]:
    """Yields the lines of two samples of one prompt, side by side if there is room."""
    yield from _prompt(best, page)
    if page.columns < _NARROWEST:
        yield from _completion(best, page)
        yield from _completion(worst, page)
        return
    width = (page.columns - len(INDENT) - len(_BETWEEN)) // 2
    columns = [[*wrap(_about(row), width), *_folded(row["completion"], width)] for row in (best, worst)]
    edge = _BETWEEN if page.blocks else " | "
    for left, right in zip_longest(*columns, fillvalue=""):
        yield f"{INDENT}{left:<{width}}{edge}{right}".rstrip()


def _prompt(row: Row, page: TextPage) -> Iterator[str]:
    yield from page.heading(f"step {row['step']}", one_line(row.get("example_id", "")))
    yield from page.fold(one_line(row.get("prompt", ""), 400), INDENT, "", BOLD)
    if row.get("answer"):
        yield from page.fold(f"answer: {one_line(row['answer'], 200)}", INDENT, "", DIM)


def _completion(row: Row, page: TextPage) -> Iterator[str]:
    yield from page.fold(_about(row), INDENT, "", YELLOW if row.get("truncated") else DIM)
    yield from _indented(row["completion"], page)


def _about(row: Row) -> str:
    tokens = [f"{row['tokens']} tokens"] if "tokens" in row else []
    cut = ["cut off"] if row.get("truncated") else []
    return " · ".join([f"reward {row['reward']:g}", *(" ".join(score) for score in scores_text(row)), *tokens, *cut])


def _indented(completion: str, page: TextPage) -> Iterator[str]:
    return (INDENT + line for line in _folded(completion, page.columns - len(INDENT)))


def _folded(completion: str, width: int) -> Iterator[str]:
    """Yields a completion's own lines, long ones folded without losing a space."""
    for line in shown(completion, _LONGEST).expandtabs().split("\n"):
        yield from wrap(line, width, replace_whitespace=False, drop_whitespace=False, break_on_hyphens=False) or [""]
