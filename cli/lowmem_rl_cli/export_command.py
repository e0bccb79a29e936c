"""`lowmem-rl export`: writes a run's model for others, with the proof that it answers like the trained one."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lowmem_rl.config.compose import ConfigLayer
from lowmem_rl.engine.lineage import PROOF
from lowmem_rl.export.export import CARD
from lowmem_rl_cli import console
from lowmem_rl_cli.text_page import stdout_page

if TYPE_CHECKING:
    from lowmem_rl.export.export import Export
    from lowmem_rl.telemetry.events import Listener


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is exported, in which form, and where it goes."""

    run: Path
    to: str
    base: str | None = None
    out: Path | None = None
    examples: int | None = None
    places: tuple[ConfigLayer, ...] = ()
    push: str | None = None
    """A repository on the hub."""
    public: bool = False


def export_command(request: ExportRequest, *, allow_code: bool, as_json: bool) -> None:
    """Exports, pushes if it is asked to, and prints what was written and why it was accepted."""
    from lowmem_rl.export.push import find_target
    from lowmem_rl_cli.live_view import view_for

    target = None if request.push is None else find_target(request.push, public=request.public)
    # Bound to the real stream: while it exports, the libraries' output goes to the log.
    view = view_for(Console(file=sys.stderr, highlight=False), f"export of {request.run}", live=False)
    try:
        made = _exported(request, view.show, allow_code=allow_code)
    finally:
        view.close()
    if target is not None:
        console.say(f"Pushing {made.path} to {target.repo}")
    address = None if target is None else target.push(made.path)
    _print(made, address, as_json=as_json)


def _exported(request: ExportRequest, show: "Listener", *, allow_code: bool) -> "Export":
    from lowmem_rl.export.export import export

    return export(
        request.run,
        request.to,
        base=request.base,
        out=request.out,
        examples=request.examples,
        allow_code=allow_code,
        places=request.places,
        listen=show,
    )


def _print(made: "Export", address: str | None, *, as_json: bool) -> None:
    pushed = {} if address is None else {"pushed": address}
    if as_json:
        console.show_json({"path": str(made.path), "what": made.spec.what, "proof": made.proof.to_json(), **pushed})
    else:
        page = stdout_page()
        summary = (f"{made.spec.what}.", f"Loaded again from disk by {made.spec.loaded_by}: {made.proof.agreement}")
        lines = (line for text in (*summary, made.proof.rightness) for line in page.fold(text, ""))
        console.show("\n".join(lines))
        console.show(f"It is in {made.path}: {CARD} is its model card, {PROOF} the record of the proof.")
        if address is not None:
            console.show(f"It is on the hub, too: {address}")
