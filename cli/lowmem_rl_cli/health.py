"""`lowmem-rl doctor RUN`: what ails a run."""

from pathlib import Path

from lowmem_rl.health.record import read_record
from lowmem_rl.health.report import examine
from lowmem_rl.runs import RunDir
from lowmem_rl_cli.console import show, show_json


def health_command(run: Path, *, as_json: bool) -> None:
    """Prints the audit. Raises `RunDirError`."""
    report = examine(read_record(RunDir(run)))
    if as_json:
        show_json(report.to_json())
    else:
        show(str(report))
