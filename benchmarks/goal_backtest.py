"""How often the forecast of `lowmem_rl.forecast` holds, on curves of runs that have ended.

    python benchmarks/goal_backtest.py benchmarks/records/demo-2026-11-20.json [STUDY_DIR ...] [--out FILE]

At every second step of each run, for goals from 0.4 to 0.9 that are not reached yet, the forecast is compared with
the step at which the mean of five accuracies reached the goal. A goal that the run never reached counts against the
forecast only if its late end is within the run. Controls, whose reward teaches nothing, must get none.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import fmean, median

from lowmem_rl.forecast import steps_to
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.storage.run_reader import RunReader, number

GOALS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
FIRST_STEP = 8
SMOOTHED = 5
ROWS = 64
"""Completions of a step of tiny-cpu."""


@dataclass(frozen=True, slots=True)
class Case:
    """One forecast: None if it was too early to tell, and the step at which the goal was reached, None if never."""

    interval: tuple[float, float] | None
    reached: int | None
    steps: int

    @property
    def is_scored(self) -> bool:
        """Whether the run was long enough to tell."""
        return self.interval is not None and (self.reached is not None or self.interval[1] <= self.steps)

    @property
    def holds(self) -> bool:
        assert self.interval is not None
        return self.reached is not None and self.interval[0] <= self.reached <= self.interval[1]


def cases(accuracies: Sequence[float]) -> Iterator[Case]:
    """Yields the forecasts of one run."""
    means = [fmean(accuracies[max(0, end - SMOOTHED) : end]) for end in range(1, len(accuracies) + 1)]
    for step in range(FIRST_STEP, len(accuracies), 2):
        for goal in GOALS:
            if means[step - 1] < goal:
                found = steps_to(goal, accuracies[:step], ROWS)
                reached = next((n + 1 for n in range(step, len(means)) if means[n] >= goal), None)
                yield Case(found and (found.low, found.high), reached, len(accuracies))


def score(curves: Sequence[Sequence[float]]) -> dict[str, float]:
    """Returns how many forecasts of these runs hold, and how wide they are."""
    found = [case for curve in curves for case in cases(curve)]
    scored = [case for case in found if case.is_scored]
    widths = [case.interval[1] / case.interval[0] for case in scored if case.interval]
    return {
        "runs": len(curves),
        "forecasts": len(scored),
        "too_early": sum(case.interval is None for case in found),
        "cover": round(fmean(case.holds for case in scored), 3) if scored else 0.0,
        "median_late_over_early": round(median(widths), 2) if widths else 0.0,
    }


def read(path: Path) -> dict[str, list[list[float]]]:
    """Returns curves by whether they learn: of the demo's record, or of the final runs of a study."""
    if path.is_dir():
        readers = [RunReader(RunDir(run)) for run in sorted(path.glob("runs/*/*/seed-*"))]
        return {"learning": [[number(row, "accuracy") or 0.0 for row in reader.metrics] for reader in readers]}
    rows = json.loads(path.read_text())["rows"]
    kinds = {
        "learning": [row for row in rows if row["arm"] == "ours"],
        "controls": [r for r in rows if r["arm"] != "ours"],
    }
    return {kind: [row["sampled_accuracy"] for row in found] for kind, found in kinds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = {f"{path.stem}, {kind}": score(curves) for path in options.paths for kind, curves in read(path).items()}
    for name, figures in found.items():
        print(name, figures)
    if options.out:
        command = f"python benchmarks/goal_backtest.py {' '.join(path.name for path in options.paths)}"
        record = {"date": date.today().isoformat(), "command": command, "scores": found}
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
