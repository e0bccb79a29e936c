"""`lowmem-rl train`: run it, or with --dry-run say exactly what would run."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from lowmem_rl.compose import Composed
from lowmem_rl.evaluation.result import EvalResult
from lowmem_rl.runs import RunDir, default_path
from lowmem_rl.signal.pass_rate import PassRate
from lowmem_rl.stats import Interval
from lowmem_rl_cli import console
from lowmem_rl_cli.dry_run import print_dry_run
from lowmem_rl_cli.options import RunRequest

if TYPE_CHECKING:
    from lowmem_rl.training.events import Listener
    from lowmem_rl.training.run import RunResult


def train_command(request: RunRequest, *, dry_run: bool, as_json: bool = False, force: bool = False) -> None:
    """Trains what is asked for, or prints what that would be."""
    composed, pass_rate = request.resolve(), request.read_pass_rate()
    out = request.out or default_path(composed.preset)
    if dry_run:
        print_dry_run(composed, out, pass_rate, as_json=as_json)
    else:
        _train(composed, out, pass_rate, as_json=as_json, force=force)


def resume_command(request: RunRequest, out: Path, *, as_json: bool = False, force: bool = False) -> None:
    """Goes on with the run in `out`."""
    composed = request.resolve_resumed(out)
    from lowmem_rl.training.run import resume  # it loads torch

    _watch(composed, lambda show: resume(composed, out, show, force=force), out, as_json=as_json)


def _train(composed: Composed, out: Path, pass_rate: PassRate | None, *, as_json: bool, force: bool) -> None:
    from lowmem_rl.training.run import run

    _watch(
        composed,
        lambda show: run(composed, out, show, force=force, pass_rate=pass_rate),
        out,
        as_json=as_json,
    )


def _watch(composed: Composed, go: "Callable[[Listener], RunResult | None]", out: Path, *, as_json: bool) -> None:
    """Shows a run while it goes, then its result; None where there was nothing left to do."""
    from lowmem_rl_cli.live import view_for

    config, began = composed.config, time.monotonic()
    # Bound to the real stream: the libraries' talk is sent elsewhere while the run lasts.
    talk = Console(file=sys.stderr, highlight=False)
    watched = talk.is_terminal and sys.stdout.isatty()
    view = view_for(talk, f"{composed.preset}: {config.model.name} learns {config.task.name}", live=watched)
    try:
        result = go(view.show)
    finally:
        view.close()
    if result is None:
        console.say(f"The run in {out} is finished: nothing is left to do.")
        console.say(f"What it was worth: lowmem-rl report {out}")
    elif as_json:
        console.show_json({"run": str(result.path), "before": result.before.to_json(), "after": result.after.to_json()})
    else:
        _print_result(result.before, result.after, result.path, time.monotonic() - began)


def _print_result(before: EvalResult, after: EvalResult, path: Path, seconds: float) -> None:
    page = Console(highlight=False)
    table = Table(title=f"{before.task}, {before.num_examples} held-out examples, greedy", title_justify="left")
    table.add_column("")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    after_cells = _result_cells(after)
    for label, cell in _result_cells(before).items():
        table.add_row(label, cell, after_cells.get(label, "-"))
    page.print(table)
    page.print(_verdict(before, after))
    page.print(f"{seconds:.0f} s in all. The run is in {path}", soft_wrap=True)
    if RunDir(path).report.exists():
        page.print(f"All of it on one page: {RunDir(path).report}", soft_wrap=True)


def _result_cells(result: EvalResult) -> dict[str, str]:
    return {
        "pass@1": _share(result.pass_at_1, result.pass_at_1_interval),
        "pass@1 in the asked form": _share(result.strict_pass_at_1, result.strict_pass_at_1_interval),
        **{name: f"{score:.3f}" for name, score in result.scores.items()},
        "completion tokens": f"{result.completion_tokens:.1f}",
        "truncated": f"{100 * result.truncated_share:.1f} %",
    }


def _share(share: float, interval: Interval) -> str:
    return f"{share:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _verdict(before: EvalResult, after: EvalResult) -> str:
    gain = after.pass_at_1 - before.pass_at_1
    if not before.pass_at_1_interval.apart_from(after.pass_at_1_interval):
        return f"{gain:+.3f}: the 95 % intervals overlap, which is no proof that it learned."
    return f"{gain:+.3f}: the 95 % intervals lie apart. It {'learned' if gain > 0 else 'got worse'}."
