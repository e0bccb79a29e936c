"""`lowmem-rl export`: writes a run's model for others, with the proof that it answers like the trained one."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lowmem_rl.config.compose import ConfigLayer
from lowmem_rl.engine.lineage import PROOF
from lowmem_rl.export.export import CARD
from lowmem_rl_cli import console
from lowmem_rl_cli.text_page import stdout_page


def export_command(
    run: Path,
    to: str,
    *,
    base: str | None,
    out: Path | None,
    examples: int | None,
    allow_code: bool,
    places: Sequence[ConfigLayer],
    as_json: bool,
) -> None:
    """Exports, and prints what was written and why it was accepted."""
    from lowmem_rl.export.export import export
    from lowmem_rl_cli.live_view import view_for

    # Bound to the real stream: while it exports, the libraries' output goes to the log.
    view = view_for(Console(file=sys.stderr, highlight=False), f"export of {run}", live=False)
    try:
        made = export(
            run, to, base=base, out=out, examples=examples, allow_code=allow_code, places=places, listen=view.show
        )
    finally:
        view.close()
    if as_json:
        console.show_json({"path": str(made.path), "what": made.spec.what, "proof": made.proof.to_json()})
    else:
        page = stdout_page()
        summary = (f"{made.spec.what}.", f"Loaded again from disk by {made.spec.loaded_by}: {made.proof.agreement}")
        lines = (line for text in (*summary, made.proof.rightness) for line in page.fold(text, ""))
        console.show("\n".join(lines))
        console.show(f"It is in {made.path}: {CARD} is its model card, {PROOF} the record of the proof.")
