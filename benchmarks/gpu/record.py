"""The record of the first minutes: its head, its parts, its file."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.gpu.checks import Unready
from benchmarks.gpu.schedule import FAILED, OUT_OF_TIME
from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.device import device_of
from lowmem_rl.models.hardware import Machine
from lowmem_rl.telemetry.environment import environment_record

Found = dict[str, Any]
RECORDS = Path(__file__).resolve().parents[1] / "records"
ONE_FAILED, NOT_ALL = 1, 4


def path_of(machine: Machine) -> Path:
    """Returns the file of today's record of a card."""
    assert machine.card is not None
    return RECORDS / f"gpu-{machine.card.key}-{date.today().isoformat()}.json"


def head(command: str, machine: Machine) -> Found:
    """Returns a record without parts. The command must have no path of this machine."""
    assert machine.card is not None
    return {
        "date": date.today().isoformat(),
        "command": command,
        "machine": environment_record(machine, device_of(machine.card, resolve(preset="tiny-cpu").config)),
        "seconds": 0.0,
        "parts": [],
    }


def finite(part: Mapping[str, Any]) -> Found:
    """Returns a part with None for numbers that are not finite, because JSON has none; `not_finite` lists them."""
    places = list(_not_finite(part))
    return {**_cleaned(part), **({"not_finite": places} if places else {})}


def _not_finite(value: Any, place: str = "") -> Iterator[str]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        yield from _not_finite(inner, f"{place}.{key}" if place else str(key))
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place}: {value}"


def _cleaned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def begin(record: Found, out: Path) -> None:
    """Writes a record without parts. Raises `Unready` if it cannot be written."""
    try:
        _write(record, out)
    except OSError as error:
        raise Unready(f"{out} cannot be written: {error.strerror}.", "Choose another file with --out FILE.") from error


def write(record: Found, out: Path) -> None:
    """Writes the record. If the disk is full it prints that, and the previous file stays."""
    try:
        _write(record, out)
    except OSError as error:
        print(f"{out} was not written: {error.strerror}.", file=sys.stderr)


def _write(record: Found, out: Path) -> None:
    """Replaces the file atomically: a run that is cut off here leaves the previous one."""
    rows = [part["found"]["row"] for part in record["parts"] if "row" in part.get("found", {})]
    text = json.dumps(record | {"memory_rows": rows}, indent=1, allow_nan=False, ensure_ascii=False)
    new = out.with_name(f".{out.name}.new")
    out.parent.mkdir(parents=True, exist_ok=True)
    new.write_text(text + "\n", encoding="utf-8")
    os.replace(new, out)


def exit_code(record: Found) -> int:
    """Returns 1 if a part failed, 4 if time was too short for one, else 0."""
    statuses = {part["status"] for part in record["parts"]}
    return ONE_FAILED if FAILED in statuses else NOT_ALL if OUT_OF_TIME in statuses else 0
