"""`make rehearse`: every GPU preset's code path on its own simulated card, as a table; 0 if nothing is a fault.

    python -m tests.rehearsal [PRESET ...] [--record FILE.json]

A cell is ok, a fault with its reason, or `-` for what was not come to. The phases are those of the embedded model with
the preset's own settings (`scenarios`); "real widths" is a training at the real model's widths with few layers
(`real_shape`), "bytes" are those of each phase at its full shape, within 5 % of the estimate (`bytes`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.rehearsal import bytes as full_shape
from tests.rehearsal import real_shape
from tests.rehearsal.scenarios import OK, PHASES, UNSEEN, cell_of, gpu_presets, planned, rehearse
from tests.rehearsal.stage import Stage, unsupported

COLUMNS = (*PHASES, "real widths", "bytes")

AT_ONCE, LONGEST_S = 2, 3600
"""Cards rehearsed at the same time; seconds for one."""
MOST_SAID = 600
"""Characters of a fault's reason in the terminal; the record has all."""
Row = dict[str, Any]
console = Console(width=None if sys.stdout.isatty() else 220)


def main() -> int:
    """Rehearses what is asked for, prints the table, writes the record."""
    options = _options()
    if reason := unsupported():
        console.print(reason)
        return 3
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        rows = list(rehearsed(options.presets or gpu_presets(), options.keep or Path(folder)))
    faults = [(row["preset"], phase, row[phase]) for row in rows for phase in COLUMNS if is_fault(row[phase])]
    console.print(table_of(rows))
    for preset, phase, reason in faults:
        console.print(f"{preset}, {phase}: {reason[:MOST_SAID]}", markup=False, highlight=False)
    if options.record:
        options.record.write_text(json.dumps(_record(rows, time.monotonic() - began), indent=1) + "\n")
    return int(bool(faults))


def rehearsed(presets: list[str], folder: Path) -> Iterator[Row]:
    """Yields each preset's row; presets of one card share its server."""
    by_card: dict[str, list[str]] = {}
    for preset in presets:
        by_card.setdefault(planned(preset).card, []).append(preset)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda card: list(_on(card, by_card[card], folder)), by_card)
        rows = {row["preset"]: row for some in found for row in some}
    yield from (rows[preset] for preset in presets)


def _on(card: str, presets: list[str], folder: Path) -> Iterator[Row]:
    with stage_of(card) as stage:
        for preset in presets:
            (folder / preset).mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            row = {"preset": preset, "card": card} | rehearse(stage, preset, folder / preset)
            row["real widths"] = cell_of(
                lambda preset=preset: at_real_widths(stage, preset, folder / preset / "widths")
            )
            row["bytes"] = cell_of(lambda preset=preset: at_full_shape(stage, preset, folder / preset / "bytes"))
            seconds = round(time.monotonic() - began)
            marks = " ".join("!" if is_fault(row[column]) else row[column] for column in COLUMNS)
            console.print(f"{preset} on {card}, {seconds} s: {marks}", markup=False, highlight=False)
            yield row | {"seconds": seconds}


def at_real_widths(stage: Stage, preset: str, folder: Path) -> Iterator[str]:
    """What is wrong with a step at the real model's widths."""
    folder.mkdir(exist_ok=True)
    ended = real_shape.trained(stage, preset, folder)
    if ended.code:
        yield f"train ended with {ended.code}: {ended.output.strip().splitlines()[-2:]}"


def at_full_shape(stage: Stage, preset: str, folder: Path) -> Iterator[str]:
    """Returns the phases whose bytes differ from the estimate."""
    folder.mkdir(exist_ok=True)
    for row in full_shape.on_stage(stage, preset, folder):
        if not row.is_close:
            yield f"{row.phase}: {row.predicted_bytes} bytes estimated, {row.measured_bytes} counted"


@contextmanager
def stage_of(card: str) -> Iterator[Stage]:
    """Yields a stage, and ends its server."""
    stage = Stage(card, limit_s=LONGEST_S)
    try:
        yield stage
    finally:
        stage.close()


def is_fault(cell: str) -> bool:
    """Returns whether a cell is a problem."""
    return cell not in (OK, UNSEEN)


def table_of(rows: list[Row]) -> Table:
    """Returns the table for a terminal."""
    table = Table("preset", "card", *COLUMNS)
    for row in rows:
        cells = ("fault" if is_fault(row[column]) else row[column] for column in COLUMNS)
        table.add_row(row["preset"], row["card"], *cells)
    return table


def _record(rows: list[Row], seconds: float) -> dict[str, Any]:
    from importlib.metadata import version

    names = ("torch", "unsloth", "unsloth_zoo", "transformers", "trl", "peft", "bitsandbytes", "triton")
    return {
        "date": date.today().isoformat(),
        "command": " ".join(["python -m tests.rehearsal", *sys.argv[1:]]),
        "machine": "simulated cards in host memory, on a CPU",
        "versions": {name: version(name) for name in names},
        "seconds": round(seconds),
        "rows": rows,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.rehearsal", description=__doc__.partition("\n")[0])
    known = gpu_presets(after_papers=True)
    names = f"{', '.join(known)}; by default all but those after papers"
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=names)
    parser.add_argument("--record", type=Path, help="a JSON file for the table")
    parser.add_argument("--keep", type=Path, help="a folder for the runs, which are otherwise removed at the end")
    options = parser.parse_args()
    if unknown := set(options.presets) - set(known):
        parser.error(f"no preset for a GPU: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
