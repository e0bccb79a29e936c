"""Does a pretrained model learn what it cannot do, and only from the reward of the answer?

    scripts/get_smollm2
    .venv/bin/python benchmarks/real_model.py --seeds 0 1 2 --jobs 2 --keep runs/real --out record.json
    .venv/bin/python benchmarks/real_model.py --task word_problems --level 1 --arms answer --seeds 0 --keep runs/real \
        --from runs/real/answer-level-0-60-steps-seed-0 --out record.json

Trains SmolLM2-135M-Instruct in 4 bit with LoRA on `arithmetic` (level 0: sums and differences within 20), by preset
tiny-cpu with the settings below (those of the preset smollm2-cpu), with each seed and under each set of rewards.
`answer` pays the right answer in any form, `boxed` the right answer in a box, which the prompt asks for; `random` and
`form` are controls: a coin, and the form of an answer without its truth. A second, harder task begins from such a run:
word problems, then products in words. The record is written after each run; runs that are in it are not repeated.

Target: with every seed greedy pass@1 on the held-out problems rises by at least 40 points (word problems: 15), and the
95 % interval of the paired difference is above 0; under the controls it does not.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import fmean, median
from typing import Any

from lowmem_rl.engine.threads import usable_cores
from lowmem_rl.storage.cache import cache_dir
from lowmem_rl.storage.run_dir import Row, RunDir, read_json, read_rows, write_json

FORM = f"{Path(__file__).with_name('number_form.py')}:form"
ARMS: dict[str, tuple[str, ...]] = {
    "answer": ("--reward=any_answer=1.0", "--set=task.prompt=bare"),
    "boxed": ("--reward=boxed_answer=1.0", "--set=task.prompt=boxed"),
    "random": ("--reward=random=1.0", "--set=task.prompt=bare"),
    "form": (f"--reward={FORM}=1.0", "--set=task.prompt=bare"),
}
CONTROLS = ("random", "form")
SETTINGS = (
    "model.bits=4",
    "grpo.prompts_per_step=8",
    "grpo.group_size=8",
    "memory.micro_batch=64",
    "optimizer.learning_rate=3e-4",  # chosen with seed 100
    "eval.every=0",
    "eval.batch=32",
)
TASKS: dict[str, tuple[str, ...]] = {
    # All held-out problems of level 0: 73.
    "arithmetic": ("task.name=arithmetic", "grpo.max_completion_tokens=16", "eval.examples=500"),
    "word_problems": ("task.name=word_problems", "grpo.max_completion_tokens=32", "eval.examples=128"),
}
TARGET_GAINS = {"arithmetic": 0.40, "word_problems": 0.15}
SMOLLM2 = Path(os.environ.get("LOWMEM_RL_SMOLLM2") or cache_dir() / "smollm2-135m-instruct")
COMPLETIONS = 64
"""A step's, by the settings above."""
POLL_S, SAY_S = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One run."""

    arm: str
    seed: int
    steps: int
    level: int
    task: str = "arithmetic"
    start: Path | None = None
    """The run that it begins from, None for the pretrained model."""

    @property
    def key(self) -> str:
        """Two trials with one key are one run."""
        task = "" if self.task == "arithmetic" else f"{self.task}, "
        after = f", after {self.start.name}" if self.start else ""
        return f"{self.arm}, {task}level {self.level}, {self.steps} steps, seed {self.seed}{after}"

    def command(self, model: str, out: Path) -> list[str]:
        """Returns the command that trains it."""
        settings = [f"--set={one}" for one in (*SETTINGS, *TASKS[self.task], f"task.levels=[{self.level}]")]
        run = [f"--model={model}", f"--seed={self.seed}", f"--steps={self.steps}", f"--out={out}", "--force"]
        start = [f"--from={self.start}"] if self.start else []
        train = [sys.executable, "-m", "lowmem_rl_cli", "train", "--preset=tiny-cpu"]
        return [*train, *settings, *ARMS[self.arm], *run, *start]


def train(trial: Trial, model: str, out: Path, threads: int) -> Row:
    """Trains, and returns the run's row of the record. Raises `RuntimeError` with the end of its output."""
    began = time.monotonic()
    done = subprocess.run(
        trial.command(model, out),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    if done.returncode:
        raise RuntimeError(f"{trial.key} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return row_of(trial, RunDir(out), time.monotonic() - began)


def row_of(trial: Trial, run: RunDir, seconds: float) -> Row:
    """Returns what the record keeps of a run: `paired` compares greedy answers before and after, item by item."""
    rows, ends = list(read_rows(run.metrics)), read_json(run.evaluations)
    return {
        "key": trial.key,
        "arm": trial.arm,
        "seed": trial.seed,
        "steps": trial.steps,
        "task": trial.task,
        "level": trial.level,
        "after": trial.start.name if trial.start else None,
        "examples": ends["after"]["num_examples"],
        "pass_at_1": {name: ends[name]["pass_at_1"] for name in ("before", "after")},
        "strict_pass_at_1": {name: ends[name]["strict_pass_at_1"] for name in ("before", "after")},
        "completion_tokens": {name: ends[name]["completion_tokens"] for name in ("before", "after")},
        "paired": ends["comparison"]["paired"],
        "sampled_accuracy": [round(row["accuracy"], 4) for row in rows],
        "sampled_tokens": round(COMPLETIONS * sum(row["completion_tokens"] for row in rows)),
        "step_s": round(median(row["step_s"] for row in rows), 2),
        "seconds": round(seconds, 1),
        "machine": read_json(run.machine),
    }


class Record:
    """The rows of all runs, written after each."""

    def __init__(self, path: Path, model: str) -> None:
        self.path, self.model = path, model
        self.rows: dict[str, Row] = {}
        if path.is_file() and path.stat().st_size:
            self.rows = {row["key"]: row for row in read_json(path)["runs"]}

    def add(self, row: Row) -> None:
        """Takes a run's row and writes the file."""
        self.rows[row["key"]] = row
        about = {
            "date": date.today().isoformat(),
            "command": " ".join(["python benchmarks/real_model.py", *sys.argv[1:]]),
            "model": Path(self.model).name,
            "settings": SETTINGS,
            "tasks": TASKS,
            "rule": f"learns: with every seed a gain of at least {TARGET_GAINS}, its paired 95 % interval above 0",
        }
        write_json(self.path, about | {"arms": summaries(list(self.rows.values())), "runs": list(self.rows.values())})


def summaries(rows: Sequence[Row]) -> list[Row]:
    """Returns what the runs of each arm, task, level and length say together."""
    kinds: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        kinds.setdefault((row["arm"], row["task"], row["level"], row["steps"]), []).append(row)
    return [summary(same) for same in kinds.values()]


def summary(rows: Sequence[Row]) -> Row:
    """Returns what runs with different seeds say of one arm."""
    gains = [row["paired"]["gain"] for row in rows]
    return {
        "arm": rows[0]["arm"],
        "task": rows[0]["task"],
        "level": rows[0]["level"],
        "steps": rows[0]["steps"],
        "seeds": [row["seed"] for row in rows],
        "before": fmean(row["pass_at_1"]["before"] for row in rows),
        "after": [row["pass_at_1"]["after"] for row in rows],
        "gain": fmean(gains),
        "lowest_gain": min(gains),
        "lowest_bound": min(row["paired"]["interval"]["low"] for row in rows),
        "learns": all(gain >= TARGET_GAINS[rows[0]["task"]] for gain in gains)
        and all(row["paired"]["interval"]["low"] > 0 for row in rows),
        "sampled_tokens": round(fmean(row["sampled_tokens"] for row in rows)),
        "longest_minutes": round(max(row["seconds"] for row in rows) / 60, 1),
    }


def table(arms: Sequence[Row]) -> str:
    """Returns the arms as a table to read."""
    head = (
        f"{'arm':8} {'task':14} {'level':>5} {'seeds':>5} {'before':>7} {'after':>16} {'gain':>6} "
        f"{'lowest bound':>12} {'min':>6}"
    )
    lines = [head]
    for arm in arms:
        after = f"{min(arm['after']):.3f} to {max(arm['after']):.3f}"
        values = f"{arm['before']:7.3f} {after:>16} {arm['gain']:+6.3f} {arm['lowest_bound']:+12.3f}"
        verdict = "learns" if arm["learns"] else "does not learn"
        head = f"{arm['arm']:8} {arm['task']:14} {arm['level']:5} {len(arm['seeds']):5}"
        lines.append(f"{head} {values} {arm['longest_minutes']:6.1f}  {verdict}")
    return "\n".join(lines)


class Progress:
    """What still runs and how long all of it takes, from the steps that were taken so far."""

    def __init__(self, trials: Sequence[Trial], folder: Path) -> None:
        self.trials, self.folder, self.began, self.said = list(trials), folder, time.monotonic(), time.monotonic()

    def out(self, trial: Trial) -> Path:
        """Returns the run directory of a trial."""
        return self.folder / trial.key.replace(", ", "-").replace(" ", "-")

    def steps(self, trial: Trial) -> int:
        """Returns the steps that a run has taken."""
        metrics = RunDir(self.out(trial)).metrics
        return metrics.read_bytes().count(b"\n") if metrics.is_file() else 0

    def report(self, running: Sequence[Trial]) -> None:
        """Prints a line now and then."""
        if time.monotonic() - self.said < SAY_S:
            return
        self.said = time.monotonic()
        taken, total = sum(map(self.steps, self.trials)), sum(trial.steps for trial in self.trials)
        left = f"{(self.said - self.began) / taken * (total - taken) / 60:.0f} min left" if taken else "loading"
        at = "; ".join(f"{trial.key}: step {self.steps(trial)}" for trial in running if self.out(trial).is_dir())
        print(f"{at or 'starting'} ({left})", file=sys.stderr)


def run_all(trials: Sequence[Trial], record: Record, jobs: int, keep: Path | None = None) -> None:
    """Trains those that the record lacks, `jobs` at a time, each on its share of the cores.

    Run directories are removed unless `keep` names their folder.
    """
    missing = [trial for trial in trials if trial.key not in record.rows]
    threads = max(1, usable_cores() // jobs)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        progress = Progress(missing, keep or Path(folder))
        waiting: dict[Future[Row], Trial] = {
            pool.submit(train, trial, record.model, progress.out(trial), threads): trial for trial in missing
        }
        while waiting:
            done, _ = wait(waiting, POLL_S, FIRST_COMPLETED)
            for future in done:
                trial = waiting.pop(future)
                row = future.result()
                record.add(row)
                ends = f"{row['pass_at_1']['before']:.3f} -> {row['pass_at_1']['after']:.3f}, {row['seconds']:.0f} s"
                print(f"{trial.key}: {ends}; {len(waiting)} runs left", file=sys.stderr)
            progress.report([trial for future, trial in waiting.items() if future.running()])


def main() -> None:
    """Runs all arms with all seeds and prints the table."""
    options = _options()
    record = Record(options.out, str(options.model))
    what = (options.steps, options.level, options.task, options.start)
    trials = [Trial(arm, seed, *what) for seed in options.seeds for arm in options.arms]
    run_all(trials, record, options.jobs, options.keep)
    print(table(summaries([record.rows[trial.key] for trial in trials])))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=SMOLLM2, help="default: the folder that scripts/get_smollm2 makes"
    )
    parser.add_argument("--arms", nargs="+", default=["answer", *CONTROLS], choices=ARMS, metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--level", type=int, default=0, choices=range(6), help="of the task")
    parser.add_argument("--task", default="arithmetic", choices=TASKS, metavar="NAME", help=", ".join(TASKS))
    parser.add_argument("--from", dest="start", type=Path, metavar="RUN", help="begin with what this run has learned")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the run directories there")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; the cores are shared out among them")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/real-model.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
