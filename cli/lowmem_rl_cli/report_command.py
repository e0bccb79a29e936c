"""`lowmem-rl report`: one file that tells what became of a run, or the same page while it is running."""

import contextlib
from dataclasses import replace
from pathlib import Path

from lowmem_rl.errors import RunDirError
from lowmem_rl.reports.run_record import RunRecord, read_record
from lowmem_rl_cli import console


def report_command(run: Path, out: Path | None, *, png: bool) -> None:
    """Writes the report or the slide, and prints where it is."""
    if png:
        from lowmem_rl.reports.png import write_slide

        console.show(str(write_slide(run, out)))
        return
    from lowmem_rl.reports.html import render, write_page
    from lowmem_rl.storage.run_dir import RunDir

    console.show(str(write_page(render(audited(read_record(run))), out or RunDir(run).report)))


def follow_command(run: Path, port: int | None) -> None:
    """Serves the page until the run has ended or Ctrl-C; says where the page stays."""
    from lowmem_rl.reports.live_server import follow

    with contextlib.suppress(KeyboardInterrupt):
        follow(run, port, _tell, audited)
        console.say("The run has ended.")
        report_command(run, None, png=False)


def audited(record: RunRecord) -> RunRecord:
    """Returns a record with an audit of its present state where it holds none: the run goes on, or was killed."""
    if record.health.get("step") == record.last_step or not record.metrics:
        return record
    from lowmem_rl.health.audit import audit
    from lowmem_rl.health.history import read_history
    from lowmem_rl.storage.run_dir import RunDir

    try:
        return replace(record, health=audit(read_history(RunDir(record.path))).to_json())
    except RunDirError:  # the audit reads more than the page does, and `doctor RUN` says what it lacks
        return record


def _tell(address: str) -> None:
    console.show(address)
    console.say("Open it in a browser on this machine; Ctrl-C ends it.")
