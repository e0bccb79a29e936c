"""`lowmem-rl doctor`, of the machine and of a run."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lowmem_rl_cli import doctor_command
from lowmem_rl_cli.doctor_command import as_line, as_table, each_fix_once
from lowmem_rl_cli.text_page import TextPage

from lowmem_rl.entrypoints.doctor import MachineCheck
from tests.unit.health.simulated_runs import Policy, simulate, write_run

Cli = Callable[..., Any]

NO_CARD = MachineCheck("card", "warn", "no GPU", "The preset tiny-cpu trains on the CPU.")
MISSING = MachineCheck("torch", "fail", "not installed", "The extra brings it.", "uv pip install 'lowmem-rl[train]'")


@pytest.mark.slow
def test_doctor_json_has_every_check_and_the_exit_code_agrees(cli: Cli) -> None:
    outcome = cli("doctor", "--json")
    found = json.loads(outcome.stdout)
    assert outcome.code == (0 if found["ready"] else 3)
    assert found["ready"] == all(check["status"] != "fail" for check in found["checks"])
    python = next(check for check in found["checks"] if check["name"] == "python")
    assert python["found"] == ".".join(map(str, sys.version_info[:3]))


def test_a_plain_line_has_status_finding_and_fix() -> None:
    assert as_line(MISSING) == ("fail torch · not installed · The extra brings it. · uv pip install 'lowmem-rl[train]'")
    assert as_line(MachineCheck("python", "ok", "3.12.1")) == "ok   python · 3.12.1"


def test_one_fix_of_many_absent_packages_is_shown_once() -> None:
    others = [replace(MISSING, name="trl"), MachineCheck("python", "ok", "3.12.1"), replace(MISSING, name="peft")]
    shown = list(each_fix_once([MISSING, *others]))
    assert [check.name for check in shown] == ["torch", "trl", "python", "peft"]
    assert [bool(check.fix) for check in shown] == [True, False, False, False]


@pytest.mark.parametrize(
    ("checks", "lines"),
    [
        ([], ["# no command to run"]),
        ([NO_CARD], ["# warn card", "# no command to run"]),
        ([NO_CARD, replace(MISSING, command="pip install torch")], ["# warn card", "pip install torch"]),
    ],
)
def test_commands_that_fix_come_last_and_that_there_is_none_is_said(
    checks: list[MachineCheck], lines: list[str], cli_here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_command, "check_machine", lambda: checks)
    monkeypatch.setattr(doctor_command.shutil, "which", lambda name: f"/bin/{name}")
    _, stdout, _ = cli_here("doctor", "--fix")
    shown = stdout.splitlines()
    assert len(shown) == len(lines)
    assert all(map(str.startswith, shown, lines))


def test_the_table_shows_square_brackets_as_they_are() -> None:
    assert "lowmem-rl[train]" in "\n".join(as_table([MISSING], TextPage(columns=120)))


def test_a_run_is_audited_and_its_findings_are_no_failure(cli_here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", simulate(0, 20, fault=no_number, onset=20))
    before = {path: path.read_bytes() for path in run.iterdir()}
    code, stdout, stderr = cli_here("doctor", str(run))
    assert (code, stderr) == (0, "")
    assert stdout.startswith("audit of 20 steps: 1 finding\ncritical  not_a_number  step 20")
    assert before == {path: path.read_bytes() for path in run.iterdir()}


def test_an_audit_for_a_program_is_json(cli_here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", simulate(0, 20, fault=no_number, onset=20))
    found = json.loads(cli_here("doctor", str(run), "--json").stdout)
    assert (found["kind"], found["step"]) == ("audit", 20)
    assert [finding["name"] for finding in found["findings"]] == ["not_a_number"]


@pytest.mark.parametrize("place", ["nothing", "."])
def test_a_folder_without_a_run_is_refused_with_7(cli_here: Cli, place: str) -> None:
    code, stdout, stderr = cli_here("doctor", place)
    assert (code, stdout) == (7, "")
    assert [line.partition(":")[0] for line in stderr.splitlines()] == ["error", "hint"]


def no_number(policy: Policy, age: int) -> None:
    policy.extra = {"loss": None}
