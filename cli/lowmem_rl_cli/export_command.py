"""`lowmem-rl export`: hands a run's model on, with the proof that it answers like the trained one."""

import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from lowmem_rl.export.export import CARD, PROOF, Export
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
    as_json: bool,
) -> None:
    """Exports, and prints what was written and why it was accepted."""
    from lowmem_rl.export.export import export
    from lowmem_rl_cli.live_view import view_for

    # Bound to the real stream: the libraries' talk is sent elsewhere meanwhile.
    view = view_for(Console(file=sys.stderr, highlight=False), f"export of {run}", live=False)
    try:
        made = export(run, to, base=base, out=out, examples=examples, allow_code=allow_code, listen=view.show)
    finally:
        view.close()
    if as_json:
        console.show_json({"path": str(made.path), "what": made.spec.what, "proof": made.proof.to_json()})
    else:
        page = stdout_page()
        console.show("\n".join(line for told in _told(made) for line in page.fold(told, "")))
        console.show(f"It is in {made.path}: {CARD} is its model card, {PROOF} the record of the proof.")


def _told(made: Export) -> Iterator[str]:
    yield f"{made.spec.what}."
    yield f"Loaded again from disk by {made.spec.loaded_by}: {made.proof.agreement}"
    yield made.proof.rightness
