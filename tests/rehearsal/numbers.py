"""The card's numbers against the CPU backend's: log-probs, advantages, gradients and weights of the same two steps.

    python -m tests.rehearsal.numbers [--states] --out benchmarks/records/rehearsal-numbers-2026-11-29.json

Runs every combination and ends with 1 if any is out of bounds; `test_numbers.py` takes a few.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy

from tests.rehearsal.replayed import Case, Computed, Numbers, Update, compute
from tests.rehearsal.server import CPU
from tests.rehearsal.stage import Stage

Kind = Literal["log_probs", "advantages", "gradients", "weights"]

BOUNDS: Mapping[Kind, float] = {"log_probs": 2.0**-12, "advantages": 0.0, "gradients": 2.0**-13, "weights": 2.0**-6}
"""By how much the two sides may differ in float32: about twice what was measured. One rounding to bfloat16 anywhere
(2^-9 of a value) is far outside.

log_probs: nats. One of -16 has a spacing of 2^-20, and it has been through some hundred roundings.
gradients: norm of the difference over the norm. The sides pad prompts to different widths: a token at another place is
rotated by another angle, whose sine and cosine are rounded otherwise (2^-18 for angles around 50). With equal widths,
as under checkpointing, they are 3 to 10 times closer.
weights: of what two steps moved. Adam moves a weight by the learning rate whichever way its gradient points, and where
that is all rounding the sides part by twice as much: of gradients that are equal to 2^-14 of their size about as many
weights, and the root of their share counts, 2^-7.
"""
CASES_A_CALL = 6
"""What one process computes: if it dies, so many are repeated."""


def every_case() -> Iterator[Case]:
    """Yields all combinations over 4-bit weights, and a few over 16-bit ones, which are float32 here."""
    paths: tuple[Any, ...] = (("dapo", "grpo", "dr_grpo"), (0.0, 0.04), get_args(Update), ("none", "plain", "unsloth"))
    yield from (Case(*path) for path in product(*paths))
    yield from (Case(beta=beta, update=update, bits=16) for beta in (0.0, 0.04) for update in get_args(Update))


def kept_states_cases() -> Iterator[Case]:
    """Yields cases whose frozen layers are computed while sampling alone."""
    for beta, update, checkpointing in product((0.0, 0.04), get_args(Update), ("none", "plain", "unsloth")):
        bits, place = (4, "host") if (beta > 0) == (update == "packed") else (16, "card")
        yield Case("dapo", beta, update, checkpointing, bits, "last:1", place)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Row:
    """A case, and how far the card's numbers are from the CPU's."""

    case: Case
    log_probs: Mapping[str, float]
    """Largest difference in nats, by kind (`replayed.Computed`)."""
    advantages: float
    """Largest difference."""
    gradients: tuple[float, ...]
    """Norm of the difference over the norm, of each step."""
    weights: float
    """Norm of the difference over the norm of what the steps moved."""
    update: Update
    """What the card's loss went through."""
    offloads: int
    """Forwards whose activations the card's checkpointing sent to host RAM."""
    bottom: int
    """Forwards of layer 0 for the card's loss and log-probs."""

    @property
    def faults(self) -> list[str]:
        """What is out of bounds, or went another way than the case asks for."""
        found = {
            "log_probs": max(self.log_probs.values()),
            "advantages": self.advantages,
            "gradients": max(self.gradients),
            "weights": self.weights,
        }
        far = [f"{kind} {found[kind]:.2g}" for kind, bound in BOUNDS.items() if not found[kind] <= bound]
        other = [] if self.update == self.case.update else [f"went {self.update}"]
        offloads = (self.offloads > 0) == (self.case.checkpointing == "unsloth")
        bottom = (self.bottom == 0) == (self.case.kept_states != "off")
        ways = ((offloads, f"{self.offloads} offloads"), (bottom, f"{self.bottom} forwards of layer 0"))
        return [*far, *other, *(text for is_so, text in ways if not is_so)]

    def __str__(self) -> str:
        log_probs = max(self.log_probs.values())
        numbers = f"log-probs {log_probs:.1e}, gradients {max(self.gradients):.1e}, weights {self.weights:.1e}"
        return f"{self.case}: {numbers} {'; '.join(self.faults) or 'ok'}"


def compare_numbers(cases: Sequence[Case], card: Stage, cpu: Stage) -> list[Row]:
    """Returns a row for each case; all of them run in one process on each side."""
    sides = [stage.call(compute, tuple(cases)) for stage in (card, cpu)]
    return [_row(case, *found) for case, *found in zip(cases, *sides, strict=True)]


def _row(case: Case, card: Computed, cpu: Computed) -> Row:
    assert card.workload == cpu.workload
    return Row(
        case,
        {kind: _largest(card.log_probs[kind], cpu.log_probs[kind]) for kind in cpu.log_probs},
        _largest(card.advantages, cpu.advantages),
        tuple(_distance(a, b) for a, b in zip(card.gradients, cpu.gradients, strict=True)),
        _distance(card.weights - card.start, cpu.weights - cpu.start),
        card.update,
        card.offloads,
        card.bottom,
    )


def _largest(one: Numbers, other: Numbers) -> float:
    return float(numpy.abs(one - other).max())


def _distance(one: Numbers, other: Numbers) -> float:
    return float(numpy.linalg.norm(one - other) / numpy.linalg.norm(other))


def main() -> int:
    """Compares every case; writes and prints the rows."""
    parser = argparse.ArgumentParser(prog="python -m tests.rehearsal.numbers", description=__doc__.partition("\n")[0])
    parser.add_argument("--card", default="a6000", help="a card of `lowmem_rl.models.hardware.CARDS`")
    parser.add_argument("--states", action="store_true", help="the cases that begin with kept states alone")
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    asked, began = parser.parse_args(), time.monotonic()
    rows = list(_rows(list(kept_states_cases() if asked.states else every_case()), asked.card))
    if asked.out:
        asked.out.write_text(json.dumps(_record(rows, time.monotonic() - began), indent=1) + "\n", encoding="utf-8")
    return int(any(row.faults for row in rows))


def _rows(cases: Sequence[Case], key: str) -> Iterator[Row]:
    card, cpu = Stage(key), Stage(CPU)
    try:
        for start in range(0, len(cases), CASES_A_CALL):
            for row in compare_numbers(cases[start : start + CASES_A_CALL], card, cpu):
                sys.stdout.write(f"{row}\n")
                sys.stdout.flush()
                yield row
    finally:
        card.close()
        cpu.close()


def _record(rows: Sequence[Row], seconds: float) -> dict[str, Any]:
    from importlib.metadata import version

    from lowmem_rl.stack import TESTED

    return {
        "date": date.today().isoformat(),
        "command": " ".join(["python -m tests.rehearsal.numbers", *sys.argv[1:]]),
        "machine": "a simulated card in host memory, and the CPU backend",
        "versions": {name: version(name) for name in TESTED},
        "seconds": round(seconds),
        "bounds": BOUNDS,
        "faults": sum(bool(row.faults) for row in rows),
        "rows": [asdict(row) | {"faults": row.faults} for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
