"""Audits a run that has ended, however it did, and writes its page. Neither may cost what was learnt."""

from collections.abc import Callable

from lowmem_rl.health.audit import audit
from lowmem_rl.health.history import read_history
from lowmem_rl.reports.html import write_report
from lowmem_rl.storage.run_dir import RunDir, write_json


def write_final_report(run_dir: RunDir, tell: Callable[[str], None]) -> None:
    """Writes health.json and report.html, and tells what ails the run; without a step there is nothing to say."""
    if not run_dir.metrics.exists():
        return
    try:
        report = audit(read_history(run_dir))
        write_json(run_dir.health, report.to_json())
        for finding in report.findings:
            tell(f"{finding}")
        write_report(run_dir.path)
    except Exception as error:  # noqa: BLE001  # a page that fails must not make a finished run fail
        tell(f"the report is not written: {type(error).__name__}: {error}")
