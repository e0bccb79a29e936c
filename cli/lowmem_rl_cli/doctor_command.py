"""`lowmem-rl doctor`: is this machine ready."""

import json
from dataclasses import asdict

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lowmem_rl.entrypoints.doctor import MachineCheck, check_machine, is_ready
from lowmem_rl.errors import SetupError

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor_command(as_json: bool) -> None:
    """Prints one line a check; exits with 3 where one fails."""
    checks = check_machine()
    console = Console()
    if as_json:
        typer.echo(json.dumps({"ready": is_ready(checks), "checks": [asdict(check) for check in checks]}, indent=2))
    elif console.is_terminal:
        console.print(as_table(checks))
    else:
        typer.echo("\n".join(map(as_line, checks)))
    if not is_ready(checks):
        raise typer.Exit(SetupError.exit_code)


def as_table(checks: list[MachineCheck]) -> Table:
    table = Table("check", "", "found", "what it means", box=None, pad_edge=False)
    for check in checks:
        meaning = " ".join(filter(None, [check.message, check.cure]))
        table.add_row(check.name, f"[{COLOURS[check.status]}]{check.status}[/]", escape(check.found), escape(meaning))
    return table


def as_line(check: MachineCheck) -> str:
    return " · ".join(filter(None, [f"{check.status:4} {check.name}", check.found, check.message, check.cure]))
