"""`lowmem-rl scale-out`: writes the same run for more than one card, and what every setting has become."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowmem_rl_cli import console
from lowmem_rl_cli.options import (
    AllowCodeOption,
    ConfigOption,
    JsonOption,
    PresetOption,
    RunRequest,
    SetOption,
    option,
)

if TYPE_CHECKING:
    from lowmem_rl.config.compose import ResolvedConfig
    from lowmem_rl.scale_out.scale_out import ScaleOut


TargetOption = Annotated[
    str, option("--to", "trl (cards of one machine, 4 bit stays) or verl (machines, vLLM).", "TARGET")
]
GpusOption = Annotated[int, option("--gpus", "Cards of each machine.", "N", min=1, max=1024)]
NodesOption = Annotated[int, option("--nodes", "Machines.", "N", min=1, max=1024)]
FolderOption = Annotated[Path, option("--out", "Folder to write, new or empty.", "DIR")]
OptionalRunArgument = Annotated[
    Path | None, typer.Argument(help="Run directory; without one, a preset.", metavar="[RUN]")
]
CardThereOption = Annotated[
    str | None, option("--card", "Kind of card there, such as h100; the preset's if unset.", "KEY")
]
AcceptOption = Annotated[
    list[str] | None, option("--accept", "Run without this setting, which the target lacks; repeatable.", "KEY")
]


def scale_out_command(
    to: TargetOption,
    gpus: GpusOption,
    out: FolderOption,
    run: OptionalRunArgument = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    setting: SetOption = None,
    nodes: NodesOption = 1,
    card: CardThereOption = None,
    accept: AcceptOption = None,
    continues: Annotated[bool, option("--continue", "Start from the adapter that RUN has learned.")] = False,
    allow_code: AllowCodeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the same run for more than one card, for TRL with accelerate or for verl.

    MAPPING.md in DIR has a row for every setting: equal, changed (how), or without counterpart. What changes the
    objective and has no counterpart is refused with 2, unless it is accepted. Nothing is started: `bash DIR/run.sh`
    starts the run, there or on another machine.
    """
    from lowmem_rl.scale_out.cluster import cluster_of
    from lowmem_rl.scale_out.scale_out import scale_out

    request = RunRequest(preset, tuple(config or ()), tuple(setting or ()), allow_code=allow_code)
    if run is not None and (request.preset, request.config_files) != (None, ()):
        raise typer.BadParameter("RUN has a configuration: leave --preset and --config out, change it with --set")
    if continues and run is None:
        raise typer.BadParameter("--continue needs a RUN that has learned something")
    cluster = cluster_of(to, gpus, nodes, Path(os.path.abspath(out)).name)  # also of `.`
    composed, adapter = _of_run(run, request, continues=continues) if run else (request.resolve(), None)
    source, accepted = str(run) if run else composed.preset, frozenset(accept or ())
    made = scale_out(composed, cluster, out, source=source, accepted=accepted, card=card, adapter=adapter)
    console.show_json(made.to_json()) if as_json else console.show(_summary(made))


def _of_run(run: Path, request: RunRequest, *, continues: bool) -> "tuple[ResolvedConfig, Path | None]":
    """Returns a run's configuration with the changes of the request, and the adapter to continue with."""
    from lowmem_rl.config.user_code import check_allowed
    from lowmem_rl.engine.trained_model import check_adapter, find_trained_adapter
    from lowmem_rl.scale_out.saved_run import of_run

    trained = find_trained_adapter(run)
    composed = of_run(trained.run, request.named_layers())
    check_allowed(composed.named_origins, allow_code=request.allow_code)
    if continues:
        check_adapter(trained, composed.config)
    return composed, trained.adapter if continues else None


def _summary(made: "ScaleOut") -> str:
    from lowmem_rl.reports.escape import shown
    from lowmem_rl.scale_out.scale_out import MAPPING
    from lowmem_rl_cli.text_page import stdout_page

    page = stdout_page()
    rows = made.keys.rows
    where = f"{shown(made.path)} has the run for {made.cluster.to} on {made.cluster}"
    lines = [f"{where}: {made.num_train} prompts to train on."]
    lines += [line for note in made.notes for line in page.fold(note.replace("`", ""), "")]
    for status in ("changed", "no counterpart"):
        chosen = [row for row in rows if row.counterpart.status == status]
        lines += page.heading(status, f"{len(chosen)} of {len(rows)} settings")
        lines += page.table([(row.key, row.counterpart.note) for row in chosen])
    return "\n".join([*lines, "", f"All others are equal. {MAPPING} there has a row for each."])
