"""The first fifteen minutes on a card that is new to this project: does it run, how much memory, how fast.

    .venv/bin/python benchmarks/gpu/first_minutes.py [--minutes 15] [--out FILE.json] [--quick]

Each part runs in separate processes, within its own time and the total time. The record is written after every part,
so a run that is cut off leaves its results. If a part fails, the record says why, and the others continue. No network
is used: the models have real shapes and random weights, which are made here and removed at the end.

The exit code is 0 if all parts are done or do not fit on this card, 1 if one failed, 2 for an unknown option or part,
3 if the machine is not ready, 4 if time was too short for a part.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "cli")]  # the script's own folder is on the path, the repository may not be

from benchmarks.gpu import checks  # noqa: E402  # all others need packages, which `main` checks first

if TYPE_CHECKING:
    from benchmarks.gpu.schedule import Part
    from lowmem_rl_bench.prove.processes import Site

MINUTES = 15


def main() -> int:
    """Runs all parts; returns the exit code."""
    options = _options()
    try:
        checks.check_packages()
        return _measured(options)
    except checks.Unready as reason:
        print(reason, file=sys.stderr)
        return reason.code


def _measured(options: argparse.Namespace) -> int:
    from benchmarks.gpu import record as records
    from benchmarks.gpu.schedule import chosen, disk_bytes, schedule
    from benchmarks.gpu.table import lines_of
    from lowmem_rl.models.hardware import this_machine
    from lowmem_rl_bench.prove.processes import Site, exit_on_signals

    exit_on_signals()
    machine, began = this_machine(), time.monotonic()
    checks.check_card(machine.name if machine.card else None)
    out = options.out or records.path_of(machine)
    wanted = chosen(list(schedule(machine, out.name, quick=options.quick)), options.only)
    record = records.head(_command(options), machine)
    with tempfile.TemporaryDirectory(prefix="first-minutes-", dir=checks.scratch(options.scratch)) as folder:
        checks.check_disk(Path(folder), disk_bytes(wanted))
        records.begin(record, out)
        _take(wanted, Site(Path(folder), began + 60 * options.minutes), record, out)
    print("\n".join(["", *lines_of(record), f"The record is {out}."]))
    return records.exit_code(record)


def _take(wanted: Sequence[Part], site: Site, record: dict[str, Any], out: Path) -> None:
    """Runs the parts one by one and writes the record after each."""
    from benchmarks.gpu.record import finite, write
    from benchmarks.gpu.schedule import taken
    from benchmarks.gpu.table import line_of

    began, share = time.monotonic(), site.seconds_left / (60 * MINUTES)
    for part in wanted:
        record["parts"].append(finite(taken(part, site, share)))
        record["seconds"] = round(time.monotonic() - began, 1)
        write(record, out)
        print(line_of(record["parts"][-1]), flush=True)


def _command(options: argparse.Namespace) -> str:
    """Returns the command without the places of this machine."""
    only = ["--only", *options.only] if options.only else []
    flags = ["--minutes", f"{options.minutes:g}", *(["--quick"] if options.quick else []), *only]
    return shlex.join(["python3", "benchmarks/gpu/first_minutes.py", *flags])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all parts together")
    parser.add_argument("--out", type=Path, help="the record; benchmarks/records/gpu-CARD-DATE.json if unset")
    parser.add_argument("--only", nargs="+", default=(), metavar="PART", help="memory, decode, step, ...: these alone")
    parser.add_argument("--scratch", type=Path, help="a folder with 25 GB for weights, which are removed at the end")
    parser.add_argument("--quick", action="store_true", help="the embedded model's shape alone, for a rehearsal")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
