"""`lowmem-rl prove` from start to end: the card, the checks, and the record, which is written after each of them."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from lowmem_rl.engine.device import device_of
from lowmem_rl.errors import SetupError
from lowmem_rl.models.hardware import Machine
from lowmem_rl.telemetry.environment import environment_record
from lowmem_rl_bench.prove.checks import FAILED, LEFT_OUT, Check, taken
from lowmem_rl_bench.prove.processes import Failed, Site
from lowmem_rl_bench.prove.record import SCHEMA, TOOL, sealed
from lowmem_rl_bench.prove.replay import estimator_digest
from lowmem_rl_bench.prove.subject import Subject

CARD_S = 120
"""Limit of the look at the card."""
_WORK = {"side": 64, "products": 1}
"""A matrix product shows that torch can compute on the card."""

Begin = Callable[[Check], None]
"""Called before each check."""
Listen = Callable[[Mapping[str, Any], Mapping[str, Any]], None]
"""Called after each check with the record so far and the check's entry."""


def needed_card(machine: Machine) -> Machine:
    """Returns the machine. Raises `SetupError` if it shows no card."""
    if machine.card is None:
        raise SetupError(
            "`prove` needs a GPU, and this machine shows none.",
            hint="`lowmem-rl doctor` shows what is missing; `lowmem-rl verify-resume` and `bench step` need none.",
        )
    return machine


def prove(subject: Subject, checks: Sequence[Check], command: str, begin: Begin, listen: Listen) -> dict[str, Any]:
    """Runs the checks and returns the record. Raises `SetupError` if torch cannot use the card."""
    with tempfile.TemporaryDirectory(prefix="lowmem-rl-prove-") as folder:
        site = Site(Path(folder), time.monotonic() + CARD_S + sum(check.limit_s for check in checks))
        record = _head(subject, command, _seen_card(site, subject))
        for check in checks:
            begin(check)
            entry, parts = taken(check, site, subject)
            record["checks"].append(entry)
            if parts:
                record["measured"] = (record["measured"] or subject.facts()) | parts
            record = sealed(record)
            listen(record, entry)
        return record


def _seen_card(site: Site, subject: Subject) -> dict[str, Any]:
    """Returns what torch says of the card. Raises `SetupError` if it cannot use it."""
    try:
        return dict(site.until(CARD_S).child("lowmem_rl_bench.prove.card", _WORK))
    except Failed as error:
        last = str(error).splitlines()[-1]
        what = f"torch cannot use this machine's {subject.machine.name}: {last}"
        raise SetupError(what, hint="`lowmem-rl doctor` shows what is missing.") from error


def _head(subject: Subject, command: str, seen: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record without checks."""
    device = device_of(subject.card, subject.config)
    return {
        "version": SCHEMA,
        "tool": TOOL,
        "date": date.today().isoformat(),
        "command": command,
        "quick": subject.quick,
        "machine": environment_record(subject.machine, device),
        "card": subject.card_facts(seen["cuda"]),
        "checks": [],
        "measured": None,
        "estimator": estimator_digest(),
    }


def exit_code(record: Mapping[str, Any]) -> int:
    """Returns 1 if a check failed, else 0."""
    return int(any(check["status"] == FAILED for check in record["checks"]))


def counted(record: Mapping[str, Any]) -> str:
    """Returns how the checks ended, in words."""
    statuses = [check["status"] for check in record["checks"]]
    failed, left_out = statuses.count(FAILED), statuses.count(LEFT_OUT)
    words = [f"{len(statuses) - failed - left_out} ok", f"{failed} failed" if failed else "", f"{left_out} left out"]
    return ", ".join(filter(None, words if left_out else words[:2]))
