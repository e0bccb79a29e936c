"""`lowmem-rl doctor RUN`: problems of a run."""

from pathlib import Path

from lowmem_rl.health.audit import audit
from lowmem_rl.health.history import read_history
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl_cli.console import show, show_json


def health_command(run: Path, *, as_json: bool) -> None:
    """Prints the audit. Raises `RunDirError`."""
    report = audit(read_history(RunDir(run)))
    if as_json:
        show_json(report.to_json())
    else:
        show(str(report))
