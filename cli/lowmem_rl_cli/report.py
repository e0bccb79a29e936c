"""`lowmem-rl report`: one file that tells what became of a run."""

from pathlib import Path

from lowmem_rl_cli import console


def report_command(run: Path, out: Path | None, *, png: bool) -> None:
    """Writes the report or the slide, and prints where it is."""
    if png:
        from lowmem_rl.reports.slide import write_slide

        console.show(str(write_slide(run, out)))
        return
    from lowmem_rl.reports.page import write_report

    console.show(str(write_report(run, out)))
