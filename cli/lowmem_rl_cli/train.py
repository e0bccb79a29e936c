"""`lowmem-rl train`: run it, or with --dry-run say exactly what would run."""

import sys
import time
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
from lowmem_rl_cli.page import this_page

if TYPE_CHECKING:
    from lowmem_rl.training.controls import Controls


def train_command(
    request: RunRequest, *, dry_run: bool, as_json: bool = False, force: bool = False, controls: bool = False
) -> None:
    """Trains what is asked for, or prints what that would be."""
    composed, pass_rate = request.resolve(), request.read_pass_rate()
    out = request.out or default_path(composed.preset)
    if dry_run:
        print_dry_run(composed, out, pass_rate, as_json=as_json)
    else:
        _train(composed, out, pass_rate, as_json=as_json, force=force, controls=controls)


def _train(
    composed: Composed, out: Path, pass_rate: PassRate | None, *, as_json: bool, force: bool, controls: bool
) -> None:
    from lowmem_rl.training.run import run
    from lowmem_rl_cli.live import view_for

    config, began = composed.config, time.monotonic()
    # Bound to the real stream: the libraries' talk is sent elsewhere while the run lasts.
    talk = Console(file=sys.stderr, highlight=False)
    watched = talk.is_terminal and sys.stdout.isatty()
    view = view_for(talk, f"{composed.preset}: {config.model.name} learns {config.task.name}", live=watched)
    try:
        result = run(composed, out, view.show, force=force, pass_rate=pass_rate)
    finally:
        view.close()
    if not as_json:
        _print_result(result.before, result.after, result.path, time.monotonic() - began)
    told = _run_controls(composed, out, talk, watched, force=force) if controls else None
    if as_json:
        shown = {"run": str(result.path), "before": result.before.to_json(), "after": result.after.to_json()}
        console.show_json(shown | ({"controls": told.to_json()} if told else {}))
    elif told:
        console.show("\n".join(line for words in told.words for line in this_page().fold(words, "")))
        console.show(f"The controls are in {RunDir(out).control('*')}, what they gained in {RunDir(out).controls}")


def _run_controls(composed: Composed, out: Path, talk: Console, watched: bool, *, force: bool) -> "Controls":
    """Trains the controls after the run's own result was shown: whoever stops them has lost nothing."""
    from lowmem_rl.training.controls import run_controls
    from lowmem_rl_cli.live import view_for

    view = view_for(talk, f"{composed.preset}: controls", live=watched)
    try:
        return run_controls(composed, out, view.show, force=force)
    finally:
        view.close()


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
