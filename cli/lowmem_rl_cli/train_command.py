"""`lowmem-rl train`: train, or with --dry-run show exactly what would run."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.config.places import without_folder
from lowmem_rl.errors import RunDirError
from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.reports.escape import p_text
from lowmem_rl.reports.run_record import read_record
from lowmem_rl.reports.sections.layers import layer_strip, what_learned
from lowmem_rl.storage.run_dir import RunDir, default_path
from lowmem_rl_cli import console
from lowmem_rl_cli.dry_run_view import print_dry_run
from lowmem_rl_cli.metric_text import share_text
from lowmem_rl_cli.options import RunRequest
from lowmem_rl_cli.text_page import BOLD, stdout_page

if TYPE_CHECKING:
    from lowmem_rl.telemetry.events import Listener
    from lowmem_rl.training.eval_schedule import BestCheckpoint
    from lowmem_rl.training.run_result import RunResult


def train_command(
    request: RunRequest, *, dry_run: bool, as_json: bool = False, force: bool = False, controls: bool = False
) -> None:
    """Trains, or with `dry_run` prints what would run."""
    composed, pass_rate = request.resolve(), request.read_pass_rate()
    if dry_run:
        out = request.out or default_path(composed.preset)
        print_dry_run(composed, out, pass_rate, as_json=as_json, force=force)
    else:
        from lowmem_rl.entrypoints.train import run  # it loads torch

        def go(show: "Listener") -> "RunResult":
            return run(composed, request.out, show, force=force, pass_rate=pass_rate)

        _watch(composed, go, request.out, as_json=as_json, force=force, controls=controls)


def resume_command(
    request: RunRequest, out: Path, *, as_json: bool = False, force: bool = False, controls: bool = False
) -> None:
    """Continues the run in `out`."""
    composed = request.resolve_resumed(out)
    from lowmem_rl.entrypoints.train import resume  # it loads torch

    def go(show: "Listener") -> "RunResult | None":
        return resume(composed, out, show, force=force)

    _watch(composed, go, out, as_json=as_json, force=force, controls=controls)


def _watch(
    composed: ResolvedConfig,
    go: "Callable[[Listener], RunResult | None]",
    out: Path | None,
    *,
    as_json: bool,
    force: bool,
    controls: bool,
) -> None:
    """Shows a run while it runs, then its result, which is None if nothing was left to do in `out`."""
    from lowmem_rl_cli.live_view import watched

    config, began = composed.config, time.monotonic()
    with watched(f"{composed.preset}: {config.model.name} learns {without_folder(config.task.name)}") as show:
        result = go(show)
    path = result.path if result else out
    if result is None:
        console.say(f"The run in {path} is finished: nothing is left to do.")
        console.say(f"Its result: lowmem-rl report {path}")
    elif not as_json:
        _print_result(result, time.monotonic() - began)
    compared = None
    if controls and path:  # after the run's own result is shown: interrupting them loses nothing
        from lowmem_rl.entrypoints.controls import run_controls

        with watched(f"{composed.preset}: controls") as show:
            compared = run_controls(composed, path, show, force=force)
    if as_json and result is not None:
        console.show_json(_as_json(result) | ({"controls": compared.to_json()} if compared else {}))
    elif compared and path:
        console.show("\n".join(line for words in compared.words for line in stdout_page().fold(words, "")))
        console.show(f"The controls are in {RunDir(path).control('*')}, their gains in {RunDir(path).controls}")


def _as_json(result: "RunResult") -> dict[str, Any]:
    evaluations = {"before": result.before.to_json(), "after": result.after.to_json(), "comparison": result.comparison}
    return {"run": str(result.path), **evaluations, "best": result.best.to_json()}


def _print_result(result: "RunResult", seconds: float) -> None:
    before, after, path, page = result.before, result.after, result.path, stdout_page()
    console.show(page.ink(f"{before.task}, {before.num_examples} held-out examples, greedy", BOLD))
    cells, after_cells = _result_cells(before), _result_cells(after)
    rows = [(label, cells.get(label, "-"), after_cells.get(label, "-")) for label in cells | after_cells]
    console.show("\n".join(page.table(rows, "lrr", ("", "before", "after"))))
    console.show(_paired_verdict(result.comparison))
    console.show(_best(result.best, path))
    for words in _what_learned(path):
        console.show("\n".join(page.fold(words, "")))
    console.show(f"{seconds:.0f} s in all. The run is in {path}")
    if RunDir(path).report.exists():
        console.show(f"All of it on one page: {RunDir(path).report}")


def _what_learned(path: Path) -> Iterator[str]:
    """Yields which weights learned, and which layers when, unless adapters learned in all layers."""
    with suppress(RunDirError):  # a damaged file costs a line
        record = read_record(path)
        strip = layer_strip(record)
        if strip or record.setting("trainable.method") == "full":
            yield f"What learned: {what_learned(record)}." + (f" {strip.sentence}" if strip else "")


def _result_cells(result: EvalResult) -> dict[str, str]:
    return {
        "pass@1": share_text(result.pass_at_1, result.pass_at_1_interval),
        "pass@1 in the requested format": share_text(result.strict_pass_at_1, result.strict_pass_at_1_interval),
        **{name: f"{score:.3f}" for name, score in result.scores.items()},
        "completion tokens": f"{result.completion_tokens:.1f}",
        "truncated": f"{100 * result.truncated_share:.1f} %",
        **({"late verdicts": str(result.late_verdicts)} if result.late_verdicts else {}),
        **({} if result.kl_nats is None else {"KL from the base, nats a token": f"{result.kl_nats:.3f}"}),
    }


def _paired_verdict(comparison: Mapping[str, Any]) -> str:
    """Returns the verdict of a paired comparison with the evaluation before training."""
    paired = comparison["paired"]
    if paired is None:
        return "The items of an evaluation are missing: the gain cannot be tested."
    low, high = paired["interval"]["low"], paired["interval"]["high"]
    found = f"{paired['gain']:+.3f} [{low:+.3f}, {high:+.3f}] on the same {paired['num_items']} problems, paired"
    counts = f"{paired['won']} became right, {paired['lost']} wrong"
    if not paired["distinguishable"]:
        return f"Not distinguishable from before: {found}, {p_text(paired['p_value'])}; {counts}."
    verdict = "It learned" if paired["gain"] > 0 else "It got worse"
    return f"{verdict}: {found}, {p_text(paired['p_value'])}; {counts}."


def _best(best: "BestCheckpoint", path: Path) -> str:
    if best.step == 0:
        return f"No later evaluation was better on the {best.num_examples} problems that all of them share."
    hedge = f", the highest of {best.chosen_of}: on other problems expect less" if best.chosen_of > 1 else ""
    share = f"{best.pass_at_1:.3f} of {best.num_examples} problems"
    return f"Best at step {best.step}, {share}{hedge}. That adapter is in {RunDir(path).best}"
