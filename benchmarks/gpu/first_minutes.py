"""The first fifteen minutes on a card that is new to this project: does it run, what does it take, how fast is it.

    python3 benchmarks/gpu/first_minutes.py [--minutes 15] [--out FILE.json] [--quick]

Each part runs in processes of its own, within its own time and the whole's. The record is written after every part: a
run that is cut off leaves what it has. A part that fails says why, and the others go on; the exit code is 0 if none
failed. No network is used: the models have real shapes and random weights, made here and removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "cli")]  # the script's own folder is there, the repository need not be

from benchmarks.gpu import parts  # noqa: E402
from benchmarks.gpu.apart import Failed, Site  # noqa: E402
from benchmarks.gpu.sizes import Size, sizes_for  # noqa: E402
from benchmarks.gpu.table import line_of, lines_of  # noqa: E402
from lowmem_rl.compose import resolve  # noqa: E402
from lowmem_rl.engine.device import device_of  # noqa: E402
from lowmem_rl.hardware import Machine, this_machine  # noqa: E402
from lowmem_rl.training.machine import machine_record  # noqa: E402

MINUTES = 15
RECORDS = ROOT / "benchmarks" / "records"
NO_CARD = 3
Work = Callable[[Site], dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """One question to the card."""

    name: str
    seconds: float
    """The most it may take of 15 minutes."""
    work: Work
    why_not: Callable[[], str] = lambda: ""
    """Asked when its turn comes."""


def main() -> int:
    """Runs all parts; returns 1 if one failed, 3 without a card."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # processes of a part are ended on the way
    machine = this_machine()
    if machine.card is None:
        print("This machine shows no card: see `lowmem-rl doctor`.", file=sys.stderr)
        return NO_CARD
    out = options.out or RECORDS / f"gpu-{machine.card.key}-{parts.today()}.json"
    record = _record(options, machine)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="first-minutes-", dir=options.scratch) as folder:
        site = Site(Path(folder), began + 60 * options.minutes)
        for part in _wanted(_parts(site, machine, out.name, quick=options.quick), options.only):
            record["parts"].append(_taken(part, site, options.minutes / MINUTES))
            record["seconds"] = round(time.monotonic() - began, 1)
            _write(record, out)
            print(line_of(record["parts"][-1]), flush=True)
    print("\n".join(["", *lines_of(record), f"The record is {out.name}."]))
    return int(any(part["status"] == "failed" for part in record["parts"]))


def _parts(site: Site, machine: Machine, source: str, *, quick: bool) -> Iterator[Part]:
    """Yields the parts, what matters most first."""
    sizes, speed = sizes_for(machine, quick=quick), parts.REHEARSED if quick else parts.ON_A_CARD
    small, large = sizes[0], sizes[-1]

    def of(name: str, seconds: float, size: Size, work: Work) -> Part:
        return Part(f"{name}, {size.name}", seconds, work, partial(_without_weights, site, size))

    yield Part("does it run", 330, partial(parts.does_it_run, quick=quick))
    for size in sizes:
        make = partial(parts.make_weights, size=size)
        yield Part(f"weights, {size.name}", 120, make, partial(size.left_out, site.folder))
        yield of("memory", 210, size, partial(parts.memory, size=size, source=source))
    yield of("decode", 150, small, partial(parts.decode, size=small, speed=speed))
    yield of("step", 240, small, partial(parts.step, size=small, speed=speed))
    yield of("out of memory", 150, small, partial(parts.out_of_memory, size=small, quick=quick))
    if large is not small:
        yield of("decode", 180, large, partial(parts.decode, size=large, speed=speed))
    yield Part("card", 60, partial(parts.card, quick=quick))


def _wanted(every: Iterator[Part], only: Sequence[str]) -> Iterator[Part]:
    """Yields the parts that are asked for, and the weights that they need."""
    for part in every:
        if not only or part.name.startswith(("weights", *only)):
            yield part


def _without_weights(site: Site, size: Size) -> str:
    return "" if parts.ready(site.folder, size) else "its weights are not there"


def _taken(part: Part, site: Site, share: float) -> dict[str, Any]:
    """Returns what came of a part."""
    began = time.monotonic()
    try:
        why_not = part.why_not() if site.seconds_left > 0 else "no time is left"
        if why_not:
            return {"name": part.name, "status": "left out", "seconds": 0.0, "reason": why_not}
        found = {"status": "done", "found": part.work(site.until(part.seconds * share))}
    except Exception as error:  # noqa: BLE001  # whatever a part meets, the card's time goes to the others
        reason = f"{'' if isinstance(error, Failed) else type(error).__name__ + ': '}{error}"
        found = {"status": "failed", "reason": site.without_paths(reason)}
    return {"name": part.name, "seconds": round(time.monotonic() - began, 1)} | found


def _record(options: argparse.Namespace, machine: Machine) -> dict[str, Any]:
    """Returns the record's head. The command names no place of this machine."""
    assert machine.card is not None
    only = ["--only", *options.only] if options.only else []
    flags = ["--minutes", f"{options.minutes:g}", *(["--quick"] if options.quick else []), *only]
    return {
        "date": parts.today(),
        "command": shlex.join(["python3", "benchmarks/gpu/first_minutes.py", *flags]),
        "machine": machine_record(machine, device_of(machine.card, resolve(preset="tiny-cpu").config)),
        "seconds": 0.0,
        "parts": [],
    }


def _write(record: dict[str, Any], out: Path) -> None:
    """Puts the record in place at once: a run that is cut off here leaves the one before."""
    rows = [part["found"]["row"] for part in record["parts"] if "row" in part.get("found", {})]
    text = json.dumps(record | {"memory_rows": rows}, indent=1, allow_nan=False, ensure_ascii=False)
    new = out.with_name(f".{out.name}.new")
    out.parent.mkdir(parents=True, exist_ok=True)
    new.write_text(text + "\n", encoding="utf-8")
    os.replace(new, out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all parts together")
    parser.add_argument("--out", type=Path, help="the record; benchmarks/records/gpu-CARD-DATE.json where unset")
    parser.add_argument("--only", nargs="+", default=(), metavar="PART", help="memory, decode, step, ...: these alone")
    parser.add_argument("--scratch", type=Path, help="a folder with 25 GB for weights, which are removed at the end")
    parser.add_argument("--quick", action="store_true", help="the embedded model's shape alone, for a rehearsal")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
