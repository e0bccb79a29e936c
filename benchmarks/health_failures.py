"""Does the audit name what goes wrong, in time, and leave healthy runs in peace?

    .venv/bin/python -m benchmarks.health_failures --runs runs/health --out benchmarks/records/health.json

Provokes failures for real, by a setting, a reward or a model folder with a mistake in it, and trains healthy runs of
several tasks and seeds beside them. Every run is watched as it goes. Then its rows are led past a new watcher: it must
say what the one beside the run has said. A failure counts as named where one of the findings that are expected for
it was told within 20 steps of its onset; the onset is read from the rows by a rule that knows of no finding.

A false stop is a critical finding in a healthy run, a false warning a warning in one. Runs that lie in `--runs` are not
trained again, so thresholds can be tried on all of them in seconds: with seeds on which they are not reported.
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
from lowmem_rl.engine.policy import cache_dir
from lowmem_rl.errors import Interrupted, LowMemError
from lowmem_rl.health.history import RunHistory, read_history
from lowmem_rl.health.incremental_audit import replay
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.models.lookup import TINY, TINY_DIRECTORY
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows, write_json
from lowmem_rl.telemetry.environment import environment_record
from lowmem_rl.telemetry.events import Event, FindingReported, StepEnded

WITHIN = 20
"""Steps from the onset in which a failure must have its name."""
COMMON = ("eval.examples=50", "eval.quick_examples=50", "eval.every=10")


def main() -> None:
    """Trains what is not there yet, replays everything, writes the record and prints what was told."""
    options = _options()
    options.runs.mkdir(parents=True, exist_ok=True)
    chosen = list(_chosen(options))
    for case, seed in chosen:
        if not options.replay_only:
            train(case, seed, run_of(options.runs, case, seed), options.bases)
    rows = [result(case, seed, run_of(options.runs, case, seed)) for case, seed in chosen if case != ROLL_BACK]
    back = [gone_back(run_of(options.runs, case, seed)) for case, seed in chosen if case == ROLL_BACK]
    if options.out:
        write_json(options.out, record(rows, options) | {"roll_back": back})
    print("\n".join([*map(line, rows), json.dumps(summary(rows), indent=2), *map(json.dumps, back)]))


def _chosen(options: argparse.Namespace) -> Iterator[tuple[Case, int]]:
    """Yields failures with the first seed, healthy runs with a seed each."""
    cases = [(case, options.seed) for case in (*FAILURES, ROLL_BACK)]
    cases += [(case, options.seed + number) for number, case in enumerate(HEALTHY)]
    for case, seed in cases:
        done = (run_of(options.runs, case, seed).path / TOLD).exists()
        if (not options.only or case.name in options.only) and (done or not options.replay_only):
            yield case, seed


def run_of(folder: Path, case: Case, seed: int) -> RunDir:
    """Returns where a case's run lies."""
    return RunDir(folder / f"{case.name.replace(',', '').replace(' ', '-')}-{seed}")


TOLD = "told.json"
"""What the watcher beside the run told, in the run's own directory."""


def train(case: Case, seed: int, out: RunDir, bases: Path) -> None:
    """Trains a case unless it was; how it ended is told beside what was found."""
    from lowmem_rl.entrypoints.train import run

    if (out.path / TOLD).exists():
        return
    shutil.rmtree(out.path, ignore_errors=True)
    live, began = Live(), time.monotonic()
    ended = "at its last step"
    try:
        with case.sabotage():
            run(composed(case, seed, out, bases), out.path, live, force=True)
    except Interrupted:
        raise
    except LowMemError as error:
        ended = str(error)
    seconds = round(time.monotonic() - began, 1)
    write_json(out.path / TOLD, {"told": live.told, "ended": ended, "seconds": seconds})
    print(f"{case.name}, seed {seed}: {seconds:.0f} s, {live.told}", file=sys.stderr)


@dataclass
class Live:
    """Listens to a run and keeps what its watcher tells, with the step."""

    step: int = 0
    told: list[tuple[int, str, str]] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Takes in an event; a finding follows the row of its step."""
        if isinstance(event, StepEnded):
            self.step = event.row["step"]
        elif isinstance(event, FindingReported):
            self.told.append((self.step, event.finding.name, event.finding.level))


def composed(case: Case, seed: int, out: RunDir, bases: Path) -> ResolvedConfig:
    """Returns the configuration of a case's run."""
    model = base_of(case.task, bases)
    if case.spoil:
        model = Path(shutil.copytree(model, out.path.with_suffix(".model"), dirs_exist_ok=True))
        case.spoil(model)
    name = TINY if model == TINY_DIRECTORY else str(model)
    options = [option.removeprefix("--set=") for option in TASK_OPTIONS[case.task]]
    named = [f"model.name={name}", f"task.name={case.task}", f"seed={seed}", f"grpo.steps={case.steps}"]
    # The last one of a key counts, where --set refuses two.
    settings = dict(setting.split("=", 1) for setting in [*named, *COMMON, *options, *case.settings])
    flags = [read_assignments("--reward", case.rewards, prefix="rewards.", replaces_rewards=True)]
    return resolve(
        preset="tiny-cpu",
        settings=[f"{key}={value}" for key, value in settings.items()],
        flags=flags if case.rewards else [],
    )


def result(case: Case, seed: int, out: RunDir) -> dict[str, Any]:
    """Returns what was told of a run and when, now and then, beside what should have been."""
    found, beside = read_history(out), read_json(out.path / TOLD)
    told = [(step, finding.name, finding.level) for step, finding in replay(found)]
    onset = case.onset(found.rows) if case.expected else None
    named = next((step for step, name, _ in told if name in case.expected), None)
    return {
        "case": case.name,
        "about": case.about,
        "seed": seed,
        "task": case.task,
        "expected": case.expected,
        "onset": onset,
        "named": named,
        "in_time": onset is not None and named is not None and named < onset + WITHIN,
        "told": told,
        "same_beside_the_run": told == [tuple(one) for one in beside["told"]],
        "accuracy": ends(found),
        "steps": found.step,
        "ended": beside["ended"],
        "seconds": beside["seconds"],
    }


def gone_back(out: RunDir) -> dict[str, Any]:
    """Returns the held-out accuracy of a run that went back: in the end, at its best healthy checkpoint, at its worst.

    Each checkpoint has an evaluation, all of the same examples; one that a roll-back has undone was none in health.
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


def ends(found: RunHistory) -> list[float]:
    """Returns the mean accuracy of the first and of the last steps' completions."""
    values = [row["accuracy"] for row in found.rows]
    return [round(fmean(part), 3) for part in (values[:3], values[-3:])]


def record(rows: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Returns what is kept."""
    machine = environment_record(this_machine(), Device("cpu", "float32"))
    return {
        "date": date.today().isoformat(),
        "command": f"python -m benchmarks.health_failures --out {options.out}",
        "machine": machine,
        "summary": summary(rows),
        "runs": rows,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what the targets speak of."""
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
    """Returns what was told of a run, in a line."""
    verdict = "" if not row["expected"] else "in time: " if row["in_time"] else "MISSED: "
    told = ", ".join(f"{name} ({severity}, {step})" for step, name, severity in row["told"]) or "nothing"
    return f"{row['case']}, seed {row['seed']}, there since {row['onset']}: {verdict}{told}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/health"), help="where the runs are kept")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="runs of these names alone")
    parser.add_argument("--seed", type=int, default=100, help="of the failures; healthy runs count up from it")
    parser.add_argument("--replay-only", action="store_true", help="train nothing, look again at what is there")
    parser.add_argument("--bases", type=Path, default=cache_dir() / "bases", help="default: in the user's cache")
    parser.add_argument("--out", type=Path, help="the record to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
