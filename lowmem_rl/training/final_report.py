"""Audits a run that has ended, in whatever way, and writes its page. Neither may cost what was learned."""

from collections.abc import Callable

from lowmem_rl.health.audit import audit
from lowmem_rl.health.history import read_history
from lowmem_rl.reports.html import write_report
from lowmem_rl.storage.run_dir import RunDir, write_json


def write_final_report(run_dir: RunDir, report: Callable[[str], None]) -> None:
    """Writes health.json and report.html, and reports the findings; without a step there are none."""
    if not run_dir.metrics.exists():
        return
    try:
        health = audit(read_history(run_dir))
        write_json(run_dir.health, health.to_json())
        for finding in health.findings:
            report(f"{finding}")
        write_report(run_dir.path)
    except Exception as error:  # noqa: BLE001  # a page that fails must not make a finished run fail
        report(f"the report is not written: {type(error).__name__}: {error}")
