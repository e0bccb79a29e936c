"""`lowmem-rl export`: writes a run's model for others, with the proof that it answers like the trained one."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowmem_rl_cli import console
from lowmem_rl_cli.options import AllowCodeOption, JsonOption, MovedModelOption, RunArgument, RunRequest, option

if TYPE_CHECKING:
    from lowmem_rl.export.export import Export
    from lowmem_rl.export.push import PushTarget

FormatOption = Annotated[str, option("--to", "Format: adapter, weights (whole ones), merged or gguf.", "FORMAT")]
BaseOption = Annotated[
    str | None,
    option(
        "--base",
        "Weights that the adapter is merged into: dequantised, the 4-bit weights it was trained on (the "
        "default there), or 16bit, their original.",
        "BASE",
    ),
]
FolderOption = Annotated[Path | None, option("--out", "Folder to write; RUN/export/FORMAT if unset.", "DIR")]
ItemsOption = Annotated[
    int | None, option("--examples", "Held-out items of the proof; 64, or 200 for accuracy.", min=1)
]
MovedTaskOption = Annotated[
    str | None, option("--task", "New place of the run's FILE.py:CLASS, if it has moved.", "NAME")
]
MovedDataOption = Annotated[
    list[str] | None, option("--set", "New place of the run's data: task.path=FILE.", "KEY=VALUE")
]
PushOption = Annotated[
    str | None,
    option(
        "--push",
        "Then push it to the hub, private unless --public; the token is HF_TOKEN's, or of `hf auth login`.",
        "NAME/REPOSITORY",
    ),
]


def export_command(
    run: RunArgument,
    to: FormatOption,
    base: BaseOption = None,
    out: FolderOption = None,
    examples: ItemsOption = None,
    model: MovedModelOption = None,
    task: MovedTaskOption = None,
    setting: MovedDataOption = None,
    push: PushOption = None,
    public: Annotated[bool, option("--public", "With --push: let everybody see it.")] = False,
    as_json: JsonOption = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Export a run's model, with proof that it answers like the trained one.

    The written files are loaded again by transformers and peft alone and answer held-out items. An adapter and a merge
    into the weights of training must give the same tokens; a merge into 16-bit originals and gguf the same accuracy.
    A failed export is removed: exit code 7. RUN/best exports the adapter of the best evaluation.
    """
    from rich.console import Console

    from lowmem_rl.export.export import export
    from lowmem_rl.export.push import find_target
    from lowmem_rl_cli.live_view import view_for

    if public and push is None:
        raise typer.BadParameter("--public needs --push")
    places = RunRequest(settings=tuple(setting or ()), task=task, model=model).named_layers()
    target = None if push is None else find_target(push, public=public)
    # Bound to the real stream: while it exports, the libraries' output goes to the log.
    stream = Console(file=sys.stderr, highlight=False)
    with closing(view_for(stream, f"export of {run}", live=False)) as view:
        made = export(
            run, to, base=base, out=out, examples=examples, allow_code=allow_code, places=places, listen=view.show
        )
    _print(made, None if target is None else _push(made, target), as_json=as_json)


def _push(made: "Export", target: "PushTarget") -> str:
    console.say(f"Pushing {made.path} to {target.repo}")
    return target.push(made.path)


def _print(made: "Export", address: str | None, *, as_json: bool) -> None:
    pushed = {} if address is None else {"pushed": address}
    if as_json:
        console.show_json({"path": str(made.path), "what": made.spec.what, "proof": made.proof.to_json(), **pushed})
    else:
        from lowmem_rl.engine.lineage import PROOF
        from lowmem_rl.export.export import CARD
        from lowmem_rl_cli.text_page import stdout_page

        page = stdout_page()
        summary = (f"{made.spec.what}.", f"Loaded again from disk by {made.spec.loaded_by}: {made.proof.agreement}")
        lines = (line for text in (*summary, made.proof.rightness) for line in page.fold(text, ""))
        console.show("\n".join(lines))
        console.show(f"It is in {made.path}: {CARD} is its model card, {PROOF} the record of the proof.")
        if address is not None:
            console.show(f"It is on the hub, too: {address}")
