"""`lowmem-rl doctor`: is this machine ready."""

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import typer

from lowmem_rl.entrypoints.doctor import MachineCheck, check_machine, fix_commands, is_ready
from lowmem_rl.errors import SetupError
from lowmem_rl_cli.console import show, show_json
from lowmem_rl_cli.text_page import GREEN, RED, YELLOW, TextPage, stdout_page

_COLOURS = {"ok": GREEN, "warn": YELLOW, "fail": RED}


def doctor_command(*, as_json: bool, fix: bool) -> None:
    """Prints the checks, in a pipe one line each, or the commands that fix them; exits with 3 if one fails."""
    checks = check_machine()
    commands = fix_commands(checks, has_uv=shutil.which("uv") is not None)
    if as_json:
        show_json({"ready": is_ready(checks), "checks": [check.to_json() for check in checks], "commands": commands})
    elif fix:
        show("\n".join([*map(as_comment, filter(_is_for_a_person, checks)), *(commands or ["# no command to run"])]))
    else:
        shown = list(each_fix_once(checks))
        show("\n".join(as_table(shown, stdout_page()) if sys.stdout.isatty() else map(as_line, shown)))
    if not is_ready(checks):
        raise typer.Exit(SetupError.exit_code)


def each_fix_once(checks: Iterable[MachineCheck]) -> Iterator[MachineCheck]:
    """Yields the checks; a fix that an earlier one has, too, is left out: nine absent packages need one command."""
    seen = set()
    for check in checks:
        yield replace(check, fix="") if check.fix in seen else check
        seen.add(check.fix)


def as_table(checks: Sequence[MachineCheck], page: TextPage) -> Iterator[str]:
    """Yields the checks as rows."""
    rows = [(check.name, check.status, _found(check)) for check in checks]
    return page.table(rows, "lll", ("check", "", "found"), inks=_COLOURS)


def _is_for_a_person(check: MachineCheck) -> bool:
    return check.status != "ok" and not check.command


def as_comment(check: MachineCheck) -> str:
    """Returns a check that no command fixes, as a comment of a shell script."""
    return f"# {as_line(check)}"


def as_line(check: MachineCheck) -> str:
    """Returns a check on one line."""
    return " · ".join(filter(None, [f"{check.status:4} {check.name}", _found(check)]))


def _found(check: MachineCheck) -> str:
    return " · ".join(filter(None, [check.found, check.message, check.fix]))
