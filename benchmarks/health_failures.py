"""Does the audit find failures in time, and nothing in healthy runs?

    .venv/bin/python -m benchmarks.health_failures --runs runs/health --out benchmarks/records/health.json

Provokes real failures with a setting, a reward or a model folder that has a mistake, and trains healthy runs of several
tasks and seeds. Each run is audited while it trains. Then its rows are replayed to a new audit, which must report the
same. A failure is found if one of its expected findings is reported within 20 steps of its onset; a rule that does not
use findings reads the onset from the rows.

A false stop is a critical finding in a healthy run, a false warning is a warning in one. Runs in `--runs` are not
trained again, so thresholds can be tried on all of them in seconds, with other seeds than those of the record.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.health_cases import FAILURES, HEALTHY, ROLL_BACK, Case
from benchmarks.learning_curves import TASK_OPTIONS, base_of
from lowmem_rl.config.compose import ResolvedConfig, read_assignments, resolve
from lowmem_rl.engine.device import Device
from lowmem_rl.errors import Interrupted, LowMemError
from lowmem_rl.health.history import read_history
from lowmem_rl.health.incremental_audit import replay
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.models.lookup import TINY, TINY_DIRECTORY
from lowmem_rl.storage.cache import cache_dir
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows, write_json
from lowmem_rl.telemetry.environment import environment_record
from lowmem_rl.telemetry.events import Event, FindingReported, StepEnded

WITHIN = 20
"""Steps from the onset within which a failure must be found."""
COMMON = ("eval.examples=50", "eval.quick_examples=50", "eval.every=10")


def main() -> None:
    """Trains missing runs, replays all, writes the record and prints the findings."""
    options = _options()
    options.runs.mkdir(parents=True, exist_ok=True)
    chosen = list(_chosen(options))
    for case, seed in chosen:
        if not options.replay_only:
            train(case, seed, run_of(options.runs, case, seed), options.bases)
    rows = [result(case, seed, run_of(options.runs, case, seed)) for case, seed in chosen if case != ROLL_BACK]
    rolled_back = [rollback_result(run_of(options.runs, case, seed)) for case, seed in chosen if case == ROLL_BACK]
    if options.out:
        write_json(options.out, record(rows, options) | {"roll_back": rolled_back})
    print("\n".join([*map(line, rows), json.dumps(summary(rows), indent=2), *map(json.dumps, rolled_back)]))


def _chosen(options: argparse.Namespace) -> Iterator[tuple[Case, int]]:
    """Yields failures with the first seed, healthy runs with a seed each."""
    cases = [(case, options.seed) for case in (*FAILURES, ROLL_BACK)]
    cases += [(case, options.seed + number) for number, case in enumerate(HEALTHY)]
    for case, seed in cases:
        done = (run_of(options.runs, case, seed).path / REPORTED).exists()
        if (not options.only or case.name in options.only) and (done or not options.replay_only):
            yield case, seed


def run_of(folder: Path, case: Case, seed: int) -> RunDir:
    """Returns the directory of a case's run."""
    return RunDir(folder / f"{case.name.replace(',', '').replace(' ', '-')}-{seed}")


REPORTED = "findings.json"
"""The findings that were reported while the run trained, in its directory."""


def train(case: Case, seed: int, out: RunDir, bases: Path) -> None:
    """Trains a case unless it was, and writes its findings and how it ended."""
    from lowmem_rl.entrypoints.train import run

    if (out.path / REPORTED).exists():
        return
    shutil.rmtree(out.path, ignore_errors=True)
    live, began = LiveFindings(), time.monotonic()
    ended = "at its last step"
    try:
        with case.sabotage():
            run(composed(case, seed, out, bases), out.path, live, force=True)
    except Interrupted:
        raise
    except LowMemError as error:
        ended = str(error)
    seconds = round(time.monotonic() - began, 1)
    write_json(out.path / REPORTED, {"told": live.reported, "ended": ended, "seconds": seconds})
    print(f"{case.name}, seed {seed}: {seconds:.0f} s, {live.reported}", file=sys.stderr)


@dataclass
class LiveFindings:
    """Listens to a run and collects its findings, each with the step."""

    step: int = 0
    reported: list[tuple[int, str, str]] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Handles an event; a finding follows the row of its step."""
        if isinstance(event, StepEnded):
            self.step = event.row["step"]
        elif isinstance(event, FindingReported):
            self.reported.append((self.step, event.finding.name, event.finding.level))


def composed(case: Case, seed: int, out: RunDir, bases: Path) -> ResolvedConfig:
    """Returns the configuration of a case's run."""
    model = base_of(case.task, bases)
    if case.spoil:
        model = Path(shutil.copytree(model, out.path.with_suffix(".model"), dirs_exist_ok=True))
        case.spoil(model)
    name = TINY if model == TINY_DIRECTORY else str(model)
    options = [option.removeprefix("--set=") for option in TASK_OPTIONS[case.task]]
    named = [f"model.name={name}", f"task.name={case.task}", f"seed={seed}", f"grpo.steps={case.steps}"]
    # The last value of a key counts; --set refuses two.
    settings = dict(setting.split("=", 1) for setting in [*named, *COMMON, *options, *case.settings])
    flags = [read_assignments("--reward", case.rewards, prefix="rewards.", replaces_rewards=True)]
    return resolve(
        preset="tiny-cpu",
        settings=[f"{key}={value}" for key, value in settings.items()],
        flags=flags if case.rewards else [],
    )


def result(case: Case, seed: int, out: RunDir) -> dict[str, Any]:
    """Returns the findings of a run's replay, whether they are those of the live audit, and what was expected."""
    found, live = read_history(out), read_json(out.path / REPORTED)
    reported = [(step, finding.name, finding.level) for step, finding in replay(found)]
    onset = case.onset(found.rows) if case.expected else None
    named = next((step for step, name, _ in reported if name in case.expected), None)
    return {
        "case": case.name,
        "about": case.about,
        "seed": seed,
        "task": case.task,
        "expected": case.expected,
        "onset": onset,
        "named": named,
        "in_time": onset is not None and named is not None and named < onset + WITHIN,
        "told": reported,
        "same_beside_the_run": reported == [tuple(one) for one in live["told"]],
        "accuracy": [round(fmean(row["accuracy"] for row in part), 3) for part in (found.rows[:3], found.rows[-3:])],
        "steps": found.step,
        "ended": live["ended"],
        "seconds": live["seconds"],
    }


def rollback_result(out: RunDir) -> dict[str, Any]:
    """Returns the held-out accuracy of a run with rollbacks: at the end, at its best healthy checkpoint, where undone.

    Each checkpoint has an evaluation of the same examples. One that a rollback has undone was not healthy.
    """
    found = read_history(out)
    *lasting, after = (one.pass_at_1 for one in found.lasting().evaluations)
    return {
        "seed": found.config.seed,
        "rollbacks": list(read_rows(out.rollbacks)),
        "best_healthy_checkpoint": max(lasting),
        "after": after,
        "undone": [(one.step, one.pass_at_1) for one in found.evaluations if one not in found.lasting().evaluations],
        "examples": found.evaluations[-1].num_examples,
    }


def record(rows: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Returns the record."""
    return {
        "date": date.today().isoformat(),
        "command": f"python -m benchmarks.health_failures --out {options.out}",
        "machine": environment_record(this_machine(), Device("cpu", "float32")),
        "summary": summary(rows),
        "runs": rows,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the figures that the targets are about."""
    failures = [row for row in rows if row["expected"]]
    healthy = [row for row in rows if not row["expected"]]
    severities = [severity for row in healthy for _, _, severity in row["told"]]
    return {
        "failures": len(failures),
        "named_in_time": sum(row["in_time"] for row in failures),
        "missed": [row["case"] for row in failures if not row["in_time"]],
        "healthy_runs": len(healthy),
        "false_stops": severities.count("critical"),
        "false_warnings": severities.count("warning"),
        "same_beside_the_run": sum(row["same_beside_the_run"] for row in rows),
    }


def line(row: dict[str, Any]) -> str:
    """Returns the findings of a run as a line."""
    verdict = "" if not row["expected"] else "in time: " if row["in_time"] else "MISSED: "
    found = ", ".join(f"{name} ({severity}, {step})" for step, name, severity in row["told"]) or "nothing"
    return f"{row['case']}, seed {row['seed']}, onset {row['onset']}: {verdict}{found}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/health"), help="where the runs are kept")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only runs of these names")
    parser.add_argument("--seed", type=int, default=100, help="of the failures; healthy runs count up from it")
    parser.add_argument("--replay-only", action="store_true", help="train nothing, replay existing runs")
    parser.add_argument("--bases", type=Path, default=cache_dir() / "bases", help="default: in the user's cache")
    parser.add_argument("--out", type=Path, help="the record to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
