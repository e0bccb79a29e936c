"""`lowmem-rl report`: the result of a run in one file, or as a page that follows the run."""

import contextlib
from dataclasses import replace
from pathlib import Path

from lowmem_rl.errors import RunDirError
from lowmem_rl.reports.run_record import RunRecord, read_record
from lowmem_rl_cli import console


def report_command(
    run: Path, out: Path | None, *, png: bool, goal: float | None = None, price: float | None = None
) -> None:
    """Writes the report or the slide, and prints its path; with a goal also when the run will reach it."""
    if png:
        from lowmem_rl.reports.png import write_slide

        console.show(str(write_slide(run, out)))
        return
    from lowmem_rl.reports.html import render, write_page
    from lowmem_rl.reports.sections.goals import GOALS, until
    from lowmem_rl.storage.run_dir import RunDir

    record = with_audit(read_record(run))
    page = render(record, goals=GOALS if goal is None else (goal,), price=price)
    console.show(str(write_page(page, out or RunDir(run).report)))
    if goal is not None:
        console.show(until(record, goal, price))


def follow_command(run: Path, port: int | None) -> None:
    """Serves the page until the run has ended or Ctrl-C; then writes it and prints its path."""
    from lowmem_rl.reports.live_server import follow

    with contextlib.suppress(KeyboardInterrupt):
        follow(run, port, _report, with_audit)
        console.say("The run has ended.")
        report_command(run, None, png=False)


def with_audit(record: RunRecord) -> RunRecord:
    """Returns a record with an audit of its present state if it has none: the run is running, or was killed."""
    if record.health.get("step") == record.last_step or not record.metrics:
        return record
    from lowmem_rl.health.audit import audit
    from lowmem_rl.health.history import read_history
    from lowmem_rl.storage.run_dir import RunDir

    try:
        return replace(record, health=audit(read_history(RunDir(record.path))).to_json())
    except RunDirError:  # the audit reads more than the page; `doctor RUN` reports what is missing
        return record


def _report(address: str) -> None:
    console.show(address)
    console.say("Open it in a browser on this machine; Ctrl-C ends it.")
