"""`lowmem-rl experiment`: arms x seeds, run and compared."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lowmem_rl_cli import console
from lowmem_rl_cli.options import AllowCodeOption, JsonOption, command_group, option

app = command_group("Compare arms over seeds: run a study, look at it, report it.")

StudyArgument = Annotated[
    Path | None,
    typer.Argument(
        help="The study, or the name of a shipped one; with --resume, that in --out if unset.", metavar="[STUDY.toml]"
    ),
]
DirArgument = Annotated[
    Path, typer.Argument(help="Directory of a study, as `experiment run` prints it.", metavar="DIR")
]
PriceOption = Annotated[float | None, option("--price-per-hour", "Price of an hour of the card.", "X")]
Where = Literal["local", "ray", "slurm"]


@app.command("run")
def run(
    study: StudyArgument = None,
    out: Annotated[
        Path | None, option("--out", "Directory of the study; experiments/NAME-TIME if unset.", "DIR")
    ] = None,
    on: Annotated[Where | None, option("--on", "Where runs go; sets [run] on.")] = None,
    jobs: Annotated[int | None, option("--jobs", "Runs at once; sets [run] jobs.", min=1)] = None,
    resume: Annotated[bool, option("--resume", "Run what is missing of the study in --out.")] = False,
    dry_run: Annotated[bool, option("--dry-run", "Print what would run, its hours, and what it could find.")] = False,
    force: Annotated[
        bool, option("--force", "Run arms that do not fit or carry no signal; continue with other versions.")
    ] = False,
    price: PriceOption = None,
    allow_code: AllowCodeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a study, or what is missing of it.

    Every arm is checked before any of them starts; one that does not fit ends the command with 4. A study that was
    stopped or killed continues with --resume, as exactly as its runs do. If a run failed, the study is reported and
    ends with 5.
    """
    from lowmem_rl_cli.experiment_run import run_command

    run_command(
        study,
        out,
        (on, jobs),
        resume=resume,
        dry_run=dry_run,
        force=force,
        allow_code=allow_code,
        as_json=as_json,
        price=price,
    )


@app.command("status")
def status(directory: DirArgument, as_json: JsonOption = False) -> None:
    """Show which runs are done, running, failed and to come."""
    from lowmem_rl_cli.experiment_view import status_facts, status_page

    console.show_json(status_facts(directory)) if as_json else console.show(status_page(directory))


@app.command("report")
def report(
    directory: DirArgument,
    out: Annotated[Path | None, option("--out", "File of the page; DIR/report.html if unset.", "FILE")] = None,
    show: Annotated[bool, option("--open", "Open the page in a browser.")] = False,
    price: PriceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the arms over the runs that have ended, and write the page; also while the study runs.

    Next to the page is pareto.svg: what each arm reaches by the memory it takes.
    """
    from lowmem_rl_cli.experiment_view import report_command

    report_command(directory, out, price, as_json=as_json, show=show)
